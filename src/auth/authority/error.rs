//! What can go wrong with the authority's files.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is no authority in the directory.
    #[error("there is no certificate authority in {}", .dir.display())]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is in the way.
    #[error("{} exists already", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read a file.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused to write a file.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others may read a private key.
    #[error("the private key {} can be read by others (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is in a file is not what it should be.
    #[error("{} {problem}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The authority's own certificate is no longer valid, so none that it issues would be.
    #[error("the certificate of the authority ended at {0}")]
    Ended(Timestamp),
    /// A name that cannot stand in a certificate.
    #[error("the name {0:?} cannot stand in a certificate")]
    Name(String),
    /// A host whose files would be those of the authority.
    #[error("the files of a host {0:?} would be those of the authority itself")]
    Oneself(String),
    /// Cryptography failed.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl CaError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            CaError::NoAuthority { dir } => {
                format!("make one: pmd ca init --dir {}; or say with --dir where it is", dir.display())
            }
            CaError::Exists { .. } => {
                "choose another directory with --dir; a new authority would make all certificates of the old one \
                 useless"
                    .to_owned()
            }
            CaError::Read { .. } => "see that the file is there, and that this user may read it".to_owned(),
            CaError::Write { .. } => {
                "choose a directory that this user may write to with --dir or --out".to_owned()
            }
            CaError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            CaError::Content { .. } => {
                "name a file that pmd ca has made, or restore it from a copy".to_owned()
            }
            CaError::Ended(_) => "make a new authority with pmd ca init in another directory".to_owned(),
            CaError::Name(_) => "choose another name, without control characters".to_owned(),
            CaError::Oneself(_) => "choose another directory with --out".to_owned(),
            CaError::Crypto(_) => "see whether the host has randomness and memory left, and try again".to_owned(),
        }
    }
}
