//! The file in which a daemon remembers the latest rotation of the cluster secret: its order, and the members that may
//! still prove the old secret, or one from before.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

use data_encoding::HEXLOWER;
use pmd_protocol::peer::codec::{decode, encode};
use pmd_protocol::peer::{Decoded, Frame, NodeId, Phase};

use super::rotation::{Former, Latest};
use crate::base::files;
use crate::base::files::{Reader, SecretError};

/// Maximum size of the file: the largest member table, an id per line, for each secret that is remembered.
const MAX_FILE: u64 = 32 * 1024 * 1024;
const HEADER: &str = "# The latest rotation of the cluster secret. pmd writes this file; it holds secrets.\n";

/// Reads the file; `None` if it does not exist.
///
/// # Errors
///
/// If it cannot be read, or is not what [`write()`] has written.
pub(super) fn read(path: &Path) -> Result<Option<Latest>, String> {
    let text = match files::read_secret(path, MAX_FILE, Reader::Daemon) {
        Ok(text) => text,
        Err(SecretError::Read(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(SecretError::Read(error)) => return Err(error.to_string()),
        Err(SecretError::Exposed(mode)) => {
            return Err(format!("other users can access it (mode {mode:04o})"));
        }
        Err(SecretError::Foreign(owner)) => return Err(format!("it belongs to another user (uid {owner})")),
    };
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut field = |name: &str| {
        let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(str::to_owned).ok_or_else(|| format!("it has no line {name:?} where one belongs"))
    };
    let frame = HEXLOWER.decode(field("rotation")?.as_bytes()).ok();
    let frame = frame.and_then(|bytes| decode(&bytes, Phase::Proven).ok().flatten());
    let Some((Decoded::Frame(Frame::Rotation(rotation)), _)) = frame else {
        return Err("its rotation cannot be read".to_owned());
    };
    let old = field("old")?;
    let until_ms = field("until")?.parse().map_err(|_| "its time cannot be read".to_owned())?;
    let mut latest = Latest { rotation, old, late: BTreeSet::new(), until_ms, former: Vec::new() };
    for line in lines {
        if let Some(id) = line.strip_prefix("late ") {
            let late = latest.former.last_mut().map_or(&mut latest.late, |former| &mut former.late);
            late.insert(id.parse().map_err(|_| "a line is not the id of a member".to_owned())?);
            continue;
        }
        let former = line.strip_prefix("former ").and_then(|rest| rest.split_once(' '));
        let former = former.and_then(|(until_ms, secret)| {
            let (secret, late) = (secret.to_owned(), BTreeSet::new());
            Some(Former { secret, late, until_ms: until_ms.parse().ok()? })
        });
        latest.former.push(former.ok_or_else(|| "a line is neither a member nor a secret".to_owned())?);
    }
    Ok(Some(latest))
}

/// Writes the file.
///
/// # Errors
///
/// If it cannot be written. The old file then remains.
pub(super) fn write(path: &Path, latest: &Latest) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(&Frame::Rotation(latest.rotation.clone()), &mut bytes).map_err(io::Error::other)?;
    let rotation = HEXLOWER.encode(&bytes);
    let mut text = format!("{HEADER}rotation {rotation}\nold {}\nuntil {}\n", latest.old, latest.until_ms);
    // Writing to memory cannot fail.
    let write_late = |text: &mut String, late: &BTreeSet<NodeId>| {
        late.iter().try_for_each(|id| writeln!(text, "late {id}")).unwrap_or_default();
    };
    write_late(&mut text, &latest.late);
    for Former { secret, late, until_ms } in &latest.former {
        let _ = writeln!(text, "former {until_ms} {secret}");
        write_late(&mut text, late);
    }
    files::replace(path, &text, files::SECRET)
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::{PublicKey, Rotation, Signature};

    use super::*;

    #[test]
    fn the_latest_rotation_is_read_as_it_was_written() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("rotation-4369");
        assert_eq!(read(&path), Ok(None));
        let rotation = Rotation {
            begun_ms: 5,
            finished: true,
            without: Some(NodeId::new([7; 32])),
            secret: "ab".repeat(32),
            author: PublicKey::new(&[3; 44]).expect("short"),
            signature: Signature::new(&[4; 66]).expect("short"),
        };
        for late in [vec![], vec![NodeId::new([1; 32]), NodeId::new([2; 32])]] {
            let old = if late.is_empty() { "" } else { "the old secret of the cluster" };
            let former = |number| Former {
                secret: format!("secret {number} from before"),
                late: [NodeId::new([number; 32])].into(),
                until_ms: u64::from(number),
            };
            let latest = Latest {
                rotation: rotation.clone(),
                old: old.to_owned(),
                late: late.into_iter().collect(),
                until_ms: 9,
                former: vec![former(8), former(7)],
            };
            write(&path, &latest).expect("room");
            assert_eq!(read(&path), Ok(Some(latest)));
        }
        let whole = std::fs::read_to_string(&path).expect("a file");
        let damaged = ["late x", "former", "former 5", "former x y", "more"].map(|line| whole.clone() + line);
        let damaged =
            damaged.into_iter().chain(["", "rotation 00\nold x\nuntil 5\n", "rotation\n"].map(str::to_owned));
        for damaged in damaged {
            files::replace(&path, &damaged, files::SECRET).expect("room");
            assert!(read(&path).is_err(), "{damaged:?}");
        }
    }
}
