//! Errors with a daemon's keys and certificates.

use std::io;
use std::path::PathBuf;

use crate::base::files::foreign_hint;

/// Why a daemon's key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A key file cannot be created.
    #[error("cannot create the key {}: {source}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A private key is readable by other users.
    #[error("the key {} is readable by other users (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A private key belongs to another user.
    #[error("the key {} belongs to another user (uid {owner})", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// A file has invalid content.
    #[error("cannot use {}: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The certificate is for another host.
    #[error("the certificate {} is not for this host, {host}", .path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The name of this host.
        host: String,
    },
    /// The key differs from the one in use.
    #[error("the key has changed, which would make this daemon a different member")]
    OtherKey,
    /// The TLS library reported an error.
    #[error("cannot set up TLS: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// How to fix the error.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            TlsError::Read { .. } => "check that the file exists and that pmd's user can read it".into(),
            TlsError::Make { .. } => "make its directory writable for pmd's user".into(),
            TlsError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            TlsError::Foreign { path, owner } => foreign_hint(path, *owner),
            TlsError::Unusable { .. } => "pmd ca show FILE prints the content of a certificate".into(),
            TlsError::Name { host, .. } => format!("issue a certificate for this host: pmd ca issue {host}"),
            TlsError::OtherKey => "restart the daemon to use the new key".into(),
            TlsError::Library(_) => "check that the certificate matches the key: pmd ca show FILE".into(),
        }
    }
}
