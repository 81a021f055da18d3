//! What can be wrong with the keys and certificates of a daemon.

use std::io;
use std::path::PathBuf;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A key cannot be made.
    #[error("cannot make the key {}: {source}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others may read a private key.
    #[error("the key {} can be read by others (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{} cannot be used: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate is for another host.
    #[error("the certificate {} is not for this host, {host}", .path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What this host is called.
        host: String,
    },
    /// The key is another one than before.
    #[error("the key is another one, and with it this daemon would be another member")]
    OtherKey,
    /// The library refused something.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            TlsError::Read { .. } => "see that the file is there and that pmd's user may read it".into(),
            TlsError::Make { .. } => "make its directory writable for pmd's user".into(),
            TlsError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            TlsError::Unusable { .. } => "pmd ca show FILE says what is in a certificate".into(),
            TlsError::Name { host, .. } => format!("issue one for it: pmd ca issue {host}"),
            TlsError::OtherKey => "restart the daemon to use the new key".into(),
            TlsError::Library(_) => "see that certificate and key belong together: pmd ca show FILE".into(),
        }
    }
}
