//! The file in which a daemon remembers the lists of revoked certificates, in PEM.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::auth::revocation::{ListSigners, RevocationError, VerifiedLists, lists_of_pem};
use crate::base::files;
use crate::base::files::{Reader, SecretError};

/// Maximum size of the file: lists of maximal size of a dozen authorities.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {reason}", .path.display())]
pub struct RevocationFileError {
    /// The file.
    path: PathBuf,
    /// The reason.
    reason: String,
}

impl RevocationFileError {
    /// How to fix the error.
    #[must_use]
    pub fn hint(&self) -> String {
        format!(
            "move {} away: the daemon then learns from the other members which certificates are revoked",
            self.path.display()
        )
    }
}

/// Reads the file; a missing one is empty. A list of an authority that this daemon does not trust any more is left out.
///
/// # Errors
///
/// If it cannot be read, or a list in it is not what its authority has signed.
pub(super) fn read(path: &Path, signers: &ListSigners) -> Result<VerifiedLists, RevocationFileError> {
    let failed = |reason| RevocationFileError { path: path.into(), reason };
    let text = match files::read_secret(path, MAX_FILE, Reader::Daemon) {
        Ok(text) => text,
        Err(SecretError::Read(error)) if error.kind() == ErrorKind::NotFound => {
            return Ok(VerifiedLists::default());
        }
        Err(SecretError::Read(error)) => return Err(failed(error.to_string())),
        Err(SecretError::Exposed(mode)) => {
            return Err(failed(format!("other users can access it (mode {mode:04o})")));
        }
        Err(SecretError::Foreign(owner)) => {
            return Err(failed(format!("it belongs to another user (uid {owner})")));
        }
    };
    let mut lists = VerifiedLists::default();
    for der in lists_of_pem(&text).map_err(|error| failed(error.to_string()))? {
        match signers.verify(&der) {
            Ok(list) => drop(lists.add(list.into())),
            Err(RevocationError::Foreign) => tracing::warn!(
                "ignored a list in {} of an authority that this daemon does not trust",
                path.display()
            ),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(lists)
}

/// Writes the file.
///
/// # Errors
///
/// If it cannot be written. The old file then remains.
pub(super) fn write(path: &Path, lists: &VerifiedLists) -> io::Result<()> {
    let text: String = lists.iter().map(|list| list.pem()).collect();
    files::replace(path, &text, files::SECRET)
}
