//! Errors of the certificate authority.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::auth::revocation::RevocationError;
use crate::base::files::foreign_hint;

/// Why a certificate cannot be created, issued or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is no authority in the directory.
    #[error("no certificate authority in {}", .dir.display())]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// A file already exists.
    #[error("{} already exists", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A private key is readable by other users.
    #[error("the private key {} is readable by other users (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A private key belongs to another user.
    #[error("the private key {} belongs to another user (uid {owner})", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// A file has invalid content.
    #[error("{} {problem}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem, which completes the sentence.
        problem: &'static str,
    },
    /// The authority's own certificate has expired, so it cannot issue valid ones.
    #[error("the authority's certificate expired at {0}")]
    Ended(Timestamp),
    /// A name that is not allowed in a certificate.
    #[error("the name {0:?} is not allowed in a certificate")]
    Name(String),
    /// A host whose files would overwrite those of the authority.
    #[error("the files of host {0:?} would overwrite the authority's own")]
    Oneself(String),
    /// No certificate of this host is known.
    #[error("no certificate for host {0:?} is in the record of this authority")]
    NotIssued(String),
    /// Several hosts have this name before their first dot.
    #[error("{0:?} is the short name of several hosts: {hosts}", hosts = .1.join(", "))]
    Several(String, Vec<String>),
    /// The list of revoked certificates cannot be used.
    #[error(transparent)]
    List(#[from] RevocationError),
    /// The certificate library reported an error.
    #[error("cannot create a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl CaError {
    /// How to fix the error.
    pub fn hint(&self) -> String {
        match self {
            CaError::NoAuthority { dir } => {
                format!("create one with pmd ca init --dir {}, or name its directory with --dir", dir.display())
            }
            CaError::Exists { .. } => {
                "choose another directory with --dir: replacing the authority would invalidate all its certificates"
                    .to_owned()
            }
            CaError::Read { .. } => "check that the file exists and that this user can read it".to_owned(),
            CaError::Write { .. } => {
                "choose a directory that this user can write to with --dir or --out".to_owned()
            }
            CaError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            CaError::Foreign { path, owner } => foreign_hint(path, *owner),
            CaError::Content { .. } => {
                "name a file created by pmd ca, or restore it from a backup".to_owned()
            }
            CaError::Ended(_) => "create a new authority in another directory with pmd ca init".to_owned(),
            CaError::Name(_) => "choose a name without control characters".to_owned(),
            CaError::Oneself(_) => "choose another directory with --out".to_owned(),
            CaError::NotIssued(_) => {
                "an earlier version of pmd kept no record: name the certificate with --certificate FILE, or with --serial (pmd ca show FILE)"
                    .to_owned()
            }
            CaError::Several(..) => "name the host by its full name".to_owned(),
            CaError::List(RevocationError::TooLong(_)) => {
                "create a new authority in another directory with pmd ca init, and issue new certificates".to_owned()
            }
            CaError::List(_) => "name a list written by pmd ca revoke, or restore it from a backup".to_owned(),
            CaError::Crypto(_) => "check that the host has free memory, and try again".to_owned(),
        }
    }
}
