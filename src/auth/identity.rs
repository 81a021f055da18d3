//! This daemon's key and certificate: generated on the first start, or issued by the cluster's authority.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use pmd_protocol::peer::NodeId;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

use super::error::TlsError;
use super::key::new_key;
use crate::base::files;
use crate::base::files::{Reader, SecretError, make_private_folder};

/// Maximum number of bytes read from a key or certificate file: enough for a chain of several certificates.
const MAX_FILE: u64 = 256 * 1024;

/// The certificate that a daemon presents to its peers, and its key.
#[derive(Debug)]
pub(super) struct Identity {
    /// The certificate, followed by the intermediates up to the authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The private key of the certificate.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Creates a self-signed certificate for the key in this file, which is generated if it does not exist.
    pub(super) fn of_own_key(path: &Path) -> Result<Identity, TlsError> {
        let unusable =
            |error: rcgen::Error| TlsError::Unusable { path: path.into(), reason: error.to_string() };
        let text = match read_private(path) {
            Err(TlsError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                make_key(path)?;
                read_private(path)?
            }
            read => read?,
        };
        let key = KeyPair::from_pem(&text).map_err(unusable)?;
        // The certificate only carries the key; nobody checks its name or dates.
        let certificate = CertificateParams::new(Vec::new()).and_then(|params| params.self_signed(&key));
        let certificate = certificate.map_err(unusable)?;
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes());
        let der = der.map_err(|error| TlsError::Unusable { path: path.into(), reason: error.to_string() })?;
        Ok(Identity { chain: vec![certificate.der().clone()], key: der })
    }

    /// Reads the certificate and key from these files.
    pub(super) fn of_files(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
        let chain = certificates(certificate)?;
        let text = read_private(key)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| TlsError::Unusable { path: key.into(), reason: error.to_string() })?;
        Ok(Identity { chain, key })
    }
}

/// Reads the certificates in a file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.into(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(read)?;
    let unusable = |reason: String| TlsError::Unusable { path: path.into(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| unusable(error.to_string()))?;
    if all.is_empty() {
        return Err(unusable("it contains no certificate".into()));
    }
    Ok(all)
}

/// The public key of a certificate, as SubjectPublicKeyInfo in DER.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, rustls::Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info().as_ref().to_vec())
}

/// The daemon that has this certificate: the SHA-256 of its public key.
pub(super) fn id_of(certificate: &CertificateDer<'_>) -> Result<NodeId, rustls::Error> {
    Ok(NodeId::new(Sha256::digest(public_key(certificate)?).into()))
}

/// Reads a file that must be readable only by its owner, which is the user of this process or root.
fn read_private(path: &Path) -> Result<String, TlsError> {
    files::read_secret(path, MAX_FILE, Reader::Daemon).map_err(|error| match error {
        SecretError::Read(source) => TlsError::Read { path: path.into(), source },
        SecretError::Exposed(mode) => TlsError::Exposed { path: path.into(), mode },
        SecretError::Foreign(owner) => TlsError::Foreign { path: path.into(), owner },
    })
}

/// Generates the key file. If two daemons start at once, both end up with the same key.
fn make_key(path: &Path) -> Result<(), TlsError> {
    let failed = |source| TlsError::Make { path: path.into(), source };
    let key = new_key().map_err(|error| failed(io::Error::other(error)))?;
    let made = path.parent().map_or(Ok(()), make_private_folder);
    made.and_then(|()| files::make_once(path, &key.serialize_pem(), files::SECRET)).map(drop).map_err(failed)
}
