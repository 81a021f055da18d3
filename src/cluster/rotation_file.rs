//! The file in which a daemon remembers the latest rotation of the cluster secret: its order, and the members that may
//! still prove the old secret.

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

use data_encoding::HEXLOWER;
use pmd_protocol::peer::codec::{decode, encode};
use pmd_protocol::peer::{Decoded, Frame, NodeId, Phase};

use super::rotation::Latest;
use crate::base::files;
use crate::base::files::{Reader, SecretError};

/// Maximum size of the file: the largest member table, an id per line.
const MAX_FILE: u64 = 8 * 1024 * 1024;
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
    let late = lines.map(|line| line.strip_prefix("late ").and_then(|id| id.parse::<NodeId>().ok()));
    let late = late.collect::<Option<_>>().ok_or_else(|| "a line is not the id of a member".to_owned())?;
    Ok(Some(Latest { rotation, old, late, until_ms }))
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
    for id in &latest.late {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "late {id}");
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
            let latest = Latest {
                rotation: rotation.clone(),
                old: old.to_owned(),
                late: late.into_iter().collect(),
                until_ms: 9,
            };
            write(&path, &latest).expect("room");
            assert_eq!(read(&path), Ok(Some(latest)));
        }
        for damaged in ["", "rotation 00\nold x\nuntil 5\n", "rotation\n"] {
            files::replace(&path, damaged, files::SECRET).expect("room");
            assert!(read(&path).is_err(), "{damaged:?}");
        }
    }
}
