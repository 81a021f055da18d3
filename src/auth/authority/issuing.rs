//! Issuing certificates to files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use pmd_protocol::peer::NodeId;
use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};

use super::error::CaError;
use super::issuer::{Authority, CERTIFICATE, HostName, Issued, read_certificates};
use super::{files, revoking};

/// The result of [`issue_files`].
#[derive(Debug)]
pub struct IssuedFiles {
    /// The issued certificate.
    pub issued: Issued,
    /// The certificate file.
    pub certificate: PathBuf,
    /// The private key file.
    pub key: PathBuf,
    /// Whether an existing key was reused.
    pub renewed: bool,
    /// Whether an existing key was replaced, because a certificate with it is revoked.
    pub replaced: bool,
}

/// Issues a certificate from the authority in `dir` and writes it to the directory `out`, reusing the existing key if
/// there is one, unless a certificate with that key is revoked: whoever has the key would only have to wait for a new
/// certificate, which every member sends to whoever asks. If `addresses` is empty, those of the existing certificate are kept.
///
/// # Errors
///
/// If there is no valid authority, or a file cannot be read or written.
pub fn issue_files(
    dir: &Path,
    out: &Path,
    host: &HostName,
    addresses: &[IpAddr],
    now: Timestamp,
    validity: Duration,
) -> Result<IssuedFiles, CaError> {
    let certificate = out.join(format!("{}.pem", host.as_str()));
    let key = out.join(format!("{}.key", host.as_str()));
    if certificate.file_name() == Some(CERTIFICATE.as_ref()) && same_folder(dir, out) {
        return Err(CaError::Oneself(host.as_str().to_owned()));
    }
    let authority = Authority::read(dir)?;
    let _lock = revoking::lock(dir)?;
    let mut old_key = if key.exists() { Some(files::read_key(&key)?) } else { None };
    let existed = old_key.is_some();
    if let Some(old) = &old_key
        && revoking::is_revoked_key(&authority, dir, node_id(old), &certificate)?
    {
        old_key = None;
    }
    let renewed = old_key.is_some();
    let mut addresses = addresses.to_vec();
    if existed && addresses.is_empty() {
        // A renewal without --ip must not drop addresses.
        let old = read_certificates(&certificate).ok().and_then(|chain| chain.into_iter().next());
        addresses = old.map(|old| old.addresses).unwrap_or_default();
    }
    let issued = authority.issue(host, &addresses, old_key, now, validity)?;
    files::make_folder(out)?;
    // First, so that there is no certificate that is not in the record.
    revoking::record(dir, &issued.certificate, host.as_str())?;
    let replaced = existed && !renewed;
    if replaced {
        files::replace(&key, &issued.key.serialize_pem(), files::SECRET)?;
    } else if !renewed {
        files::write_new(&key, &issued.key.serialize_pem(), files::SECRET)?;
    }
    files::replace(&certificate, &issued.chain, files::PUBLIC)?;
    Ok(IssuedFiles { issued, certificate, key, renewed, replaced })
}

/// The id of the daemon with this key.
pub(super) fn node_id(key: &KeyPair) -> NodeId {
    NodeId::new(Sha256::digest(key.subject_public_key_info()).into())
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
