//! A private certificate authority for a cluster, and the certificates that it issues.
//!
//! An authority consists of two files in one directory, `ca.pem` and `ca.key`. Every host needs the first, which is not
//! secret; the second never leaves the directory. Beside them are the record of issued certificates, and the list of revoked
//! ones once there are any. A certificate names the host and serves both ends of a link. The
//! daemon's id is the SHA-256 of its public key, so a certificate is renewed with the existing key to keep the id.

mod certificate;
mod error;
mod files;
mod issuer;
mod issuing;
mod revoking;

#[cfg(test)]
mod tests;

pub use certificate::Certificate;
pub use error::CaError;
pub(crate) use issuer::CLOCKS_APART;
pub use issuer::{Authority, CERTIFICATE, DAY, HostName, Issued, KEY, NotAHostName, read_certificates};
pub use issuing::{IssuedFiles, issue_files};
pub use revoking::{IssuedRecord, REVOKED, Revoke, Revoked, issued, list, read_list, revoke};
