//! The file in which a daemon remembers whom administrators have expelled.
//!
//! One decision per line, as the frame in which daemons send it to each other, in hexadecimal digits. `pmd expelled` shows
//! what it says.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use pmd_protocol::peer::codec::{decode, encode};
use pmd_protocol::peer::{Decoded, Expulsion, Expulsions, Frame, NodeId, Phase};
use tokio::sync::watch;

use crate::base::files;
use crate::base::files::Reader;

/// The latest decision about each member.
pub type Decisions = BTreeMap<NodeId, Expulsion>;

/// Maximum size of the file: all decisions that the core remembers, with names and keys of maximal size.
const MAX_FILE: u64 = 4 * 1024 * 1024;
const HEADER: &str = "# Decisions of administrators about members (pmd expelled). Without this file, this daemon asks the others.\n";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecisionsError {
    /// It cannot be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A line is not a decision.
    #[error("{}, line {line}: not a decision about a member", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line.
        line: usize,
    },
}

impl DecisionsError {
    /// How to fix the error.
    #[must_use]
    pub fn hint(&self) -> String {
        let (DecisionsError::Read { path, .. } | DecisionsError::Line { path, .. }) = self;
        format!("move {} away: the daemon then learns from the other members who is expelled", path.display())
    }
}

/// Reads the file; a missing one is empty.
///
/// # Errors
///
/// If it cannot be read, or is not what this daemon has written.
pub fn read(path: &Path) -> Result<Vec<Expulsion>, DecisionsError> {
    let text = match files::read_secret(path, MAX_FILE, Reader::Daemon) {
        Ok(text) => text,
        Err(files::SecretError::Read(error)) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let reason = match error {
                files::SecretError::Read(error) => error.to_string(),
                files::SecretError::Exposed(mode) => format!("other users can access it (mode {mode:04o})"),
                files::SecretError::Foreign(owner) => format!("it belongs to another user (uid {owner})"),
            };
            return Err(DecisionsError::Read { path: path.into(), reason });
        }
    };
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let bytes = HEXLOWER.decode(line.trim().as_bytes()).ok();
        let frame = bytes.and_then(|bytes| decode(&bytes, Phase::Proven).ok().flatten());
        match frame {
            Some((Decoded::Frame(Frame::Expulsions(mut decisions)), _)) => all.append(&mut decisions.list),
            _ => return Err(DecisionsError::Line { path: path.into(), line: number + 1 }),
        }
    }
    Ok(all)
}

/// Writes the file whenever the decisions have changed.
pub(super) async fn keep(path: PathBuf, mut decisions: watch::Receiver<Arc<Decisions>>) {
    while decisions.changed().await.is_ok() {
        let (path, current) = (path.clone(), Arc::clone(&decisions.borrow_and_update()));
        let written = tokio::task::spawn_blocking(move || write(&path, &current)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(
                "cannot remember who is expelled: {error}; after a restart, other members will say it"
            );
        }
    }
    // The daemon ends.
    std::future::pending::<()>().await;
}

fn write(path: &Path, decisions: &Decisions) -> io::Result<()> {
    let mut text = HEADER.to_owned();
    for decision in decisions.values() {
        let mut bytes = Vec::new();
        let frame = Frame::Expulsions(Expulsions { list: vec![decision.clone()] });
        encode(&frame, &mut bytes).map_err(io::Error::other)?;
        text += &HEXLOWER.encode(&bytes);
        text.push('\n');
    }
    files::replace(path, &text, files::SECRET)
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::{PublicKey, Signature};

    use super::*;

    fn decision(number: u8) -> Expulsion {
        Expulsion {
            member: NodeId::new([number; 32]),
            decided_ms: 1,
            expelled: number.is_multiple_of(2),
            host: "stolen".into(),
            by: "ops1".into(),
            author: PublicKey::new(&[3; 44]).expect("short"),
            signature: Signature::new(&[4; 66]).expect("short"),
        }
    }

    #[test]
    fn decisions_are_read_as_they_were_written() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("expelled-4369");
        assert_eq!(read(&path).expect("a missing file is empty"), []);
        let all: Decisions = (0..40).map(|number| (decision(number).member, decision(number))).collect();
        write(&path, &all).expect("room");
        assert_eq!(read(&path).expect("a file"), all.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_forgotten() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("expelled-4369");
        for text in ["# x\nnonsense\n", "# x\n00\n", "# x\n000000021000\n"] {
            files::replace(&path, text, files::SECRET).expect("room");
            let error = read(&path).expect_err(text);
            assert_eq!(
                error.to_string(),
                format!("{}, line 2: not a decision about a member", path.display())
            );
            assert!(error.hint().starts_with("move "));
        }
    }
}
