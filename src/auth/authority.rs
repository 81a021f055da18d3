//! A certificate authority of a cluster's own, and the certificates that it issues.
//!
//! An authority is two files in one directory, `ca.pem` and `ca.key`. Every host needs the first, which is no secret;
//! the second stays where it is. A certificate names the host and serves both ends of a link. Its daemon's id is the
//! SHA-256 of its public key, so a certificate is renewed with the key that is there: the daemon stays the same one.

mod certificate;
mod error;
mod files;

#[cfg(test)]
mod tests;

pub use error::CaError;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::DnsName;

pub use certificate::Certificate;

use super::key::new_key;

/// The certificate of an authority, in its directory.
pub const CERTIFICATE: &str = "ca.pem";
/// The private key of an authority, in its directory.
pub const KEY: &str = "ca.key";

/// Bytes of a serial number: enough that no two are the same.
const SERIAL: usize = 16;
/// How much earlier than now a certificate begins to be valid: the clocks of a cluster need not agree by more.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(3600);

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The name of a host, as it can stand in a certificate: small letters, no dot at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// Text that is no [`HostName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAHostName {
    /// An address.
    #[error("that is an address; give the name of the host, and its address with --ip")]
    Address,
    /// The name of an Erlang node.
    #[error("that is the name of an Erlang node; give the name of its host")]
    Node,
    /// Something else.
    #[error("the name of a host has letters, digits, hyphens and dots, as host1 or host1.example.org")]
    Other,
}

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names that a certificate of this host has: the one that was given, and if it is long, the short one too.
    /// A daemon calls itself what `hostname` prints, which may be either.
    pub fn names(&self) -> Vec<&str> {
        match self.0.split_once('.') {
            Some((short, _)) if DnsName::try_from(short).is_ok() => vec![&self.0, short],
            _ => vec![&self.0],
        }
    }
}

impl FromStr for HostName {
    type Err = NotAHostName;

    fn from_str(text: &str) -> Result<HostName, NotAHostName> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok() {
            return Err(NotAHostName::Address);
        }
        if name.contains('@') {
            return Err(NotAHostName::Node);
        }
        DnsName::try_from(name.as_str()).map_err(|_| NotAHostName::Other)?;
        Ok(HostName(name))
    }
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What an authority has issued.
#[derive(Debug)]
pub struct Issued {
    /// The certificate of the host, then that of the authority.
    pub chain: String,
    /// The private key.
    pub key: KeyPair,
    /// What the certificate of the host says.
    pub certificate: Certificate,
    /// Whether it is valid for a shorter time than was asked for, because the authority is.
    pub shortened: bool,
}

impl Authority {
    /// A new authority, which is valid for a while from `now` on.
    ///
    /// # Errors
    ///
    /// If the name cannot stand in a certificate, or if there is no randomness.
    pub fn new(name: &str, now: Timestamp, life: Duration) -> Result<Authority, CaError> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(CaError::Name(name.to_owned()));
        }
        let key = new_key()?;
        let mut params = params(name, now, life);
        // It issues for hosts, and makes no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Authority::of_pem(pem, key, Path::new(CERTIFICATE))
    }

    /// The authority in the directory `dir`.
    ///
    /// # Errors
    ///
    /// If there is none, or if its key can be read by others or is not that of its certificate.
    pub fn read(dir: &Path) -> Result<Authority, CaError> {
        let path = dir.join(CERTIFICATE);
        let pem = match files::read(&path) {
            Err(CaError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(CaError::NoAuthority { dir: dir.into() });
            }
            pem => pem?,
        };
        Authority::of_pem(pem, files::read_key(&dir.join(KEY))?, &path)
    }

    fn of_pem(pem: String, key: KeyPair, path: &Path) -> Result<Authority, CaError> {
        let wrong = |problem| CaError::Content { path: path.into(), problem };
        let certificate = Certificate::all_of_pem(&pem, path)?.swap_remove(0);
        if !certificate.authority {
            return Err(wrong("is not the certificate of an authority"));
        }
        if certificate.public_key != key.subject_public_key_info() {
            return Err(wrong("does not belong to the private key beside it"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)?;
        Ok(Authority { pem, certificate, issuer })
    }

    /// Puts the authority into the directory `dir`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// If there is one already, or if the system refuses it.
    pub fn write(&self, dir: &Path) -> Result<(), CaError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        // Looked for before anything is written: half an authority is none.
        if let Some(path) = [&certificate, &key].into_iter().find(|path| path.exists()) {
            return Err(CaError::Exists { path: path.clone() });
        }
        files::make_folder(dir)?;
        files::write_new(&key, &self.issuer.key().serialize_pem(), files::SECRET)?;
        files::write_new(&certificate, &self.pem, files::PUBLIC).inspect_err(|_| {
            let _ = std::fs::remove_file(&key);
        })
    }

    /// What its own certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Issues a certificate for a host and its key; with a new key if none is given.
    ///
    /// # Errors
    ///
    /// If the authority itself is not valid any more.
    pub fn issue(
        &self,
        host: &HostName,
        addresses: &[IpAddr],
        key: Option<KeyPair>,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, CaError> {
        let end = self.certificate.not_after;
        if end <= now {
            return Err(CaError::Ended(end));
        }
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        let key = match key {
            Some(key) => key,
            None => new_key()?,
        };
        let mut params = params(host.as_str(), now, life.min(left));
        for name in host.names() {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issued = params.signed_by(&key, &self.issuer)?;
        let certificate = Certificate::of_der(issued.der().clone(), Path::new(host.as_str()))?;
        let chain = format!("{}{}", issued.pem(), self.pem);
        Ok(Issued { chain, key, certificate, shortened: life > left })
    }
}

/// What [`issue_files`] has done.
#[derive(Debug)]
pub struct IssuedFiles {
    /// The certificate and what it says.
    pub issued: Issued,
    /// The file with the certificate.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// Whether there was a key, which is used again.
    pub renewed: bool,
}

/// Issues a certificate from the authority in `dir` into the directory `out`, with the key that is there or a new one;
/// without `addresses`, for those of the certificate that is there.
///
/// # Errors
///
/// If there is no authority that can issue anything, or if the system refuses to write.
pub fn issue_files(
    dir: &Path,
    out: &Path,
    host: &HostName,
    addresses: &[IpAddr],
    now: Timestamp,
    life: Duration,
) -> Result<IssuedFiles, CaError> {
    let certificate = out.join(format!("{}.pem", host.as_str()));
    let key = out.join(format!("{}.key", host.as_str()));
    if certificate.file_name() == Some(CERTIFICATE.as_ref()) && same_folder(dir, out) {
        return Err(CaError::Oneself(host.as_str().to_owned()));
    }
    let authority = Authority::read(dir)?;
    let old_key = if key.exists() { Some(files::read_key(&key)?) } else { None };
    let renewed = old_key.is_some();
    let mut addresses = addresses.to_vec();
    if renewed && addresses.is_empty() {
        // Whoever renews a certificate does not mean to take something from it.
        let old = read_certificates(&certificate).ok().and_then(|chain| chain.into_iter().next());
        addresses = old.map(|old| old.addresses).unwrap_or_default();
    }
    let issued = authority.issue(host, &addresses, old_key, now, life)?;
    files::make_folder(out)?;
    if !renewed {
        files::write_new(&key, &issued.key.serialize_pem(), files::SECRET)?;
    }
    files::replace(&certificate, &issued.chain, files::PUBLIC)?;
    Ok(IssuedFiles { issued, certificate, key, renewed })
}

/// The certificates in the file at `path`, in their order; at least one.
///
/// # Errors
///
/// If it cannot be read, or if what is in it is no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CaError> {
    Certificate::all_of_pem(&files::read(path)?, path)
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn params(name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // RFC 5280, 4.1.2.2: one for each certificate of an authority. Made from the key, one that is renewed would have the same.
    params.serial_number = Some(SerialNumber::from(rand::random::<[u8; SERIAL]>().to_vec()));
    let now = SystemTime::from(now);
    params.not_before = (now - CLOCKS_APART).into();
    params.not_after = (now + life).into();
    params
}
