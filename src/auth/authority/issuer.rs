//! The authority itself: its key, its certificate, and the certificates that it signs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::DnsName;

use super::certificate::Certificate;
use super::error::CaError;
use super::files;
use crate::auth::key::new_key;

/// The file name of an authority's certificate.
pub const CERTIFICATE: &str = "ca.pem";
/// The file name of an authority's private key.
pub const KEY: &str = "ca.key";

/// Length of a random serial number in bytes: enough to be unique.
const SERIAL: usize = 16;
/// Certificates are backdated by this much, to tolerate clock differences within a cluster.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(3600);

/// One day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A host name in the form used in certificates: lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// Why a text is not a valid [`HostName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAHostName {
    /// It is an IP address.
    #[error("that is an IP address; give the host name, and the address with --ip")]
    Address,
    /// It is the name of an Erlang node.
    #[error("that is the name of an Erlang node; give the name of its host")]
    Node,
    /// It is not a valid DNS name.
    #[error("a host name consists of letters, digits, hyphens and dots, such as host1 or host1.example.org")]
    Other,
}

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names in a certificate for this host: the given one, and its short form if it is fully qualified. A daemon
    /// uses the output of `hostname`, which may be either.
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
    pub(super) certificate: Certificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was issued, with its key.
#[derive(Debug)]
pub struct Issued {
    /// The host's certificate followed by the authority's, in PEM.
    pub chain: String,
    /// The host's private key.
    pub key: KeyPair,
    /// The parsed certificate of the host.
    pub certificate: Certificate,
    /// Whether the validity is shorter than requested, because the authority expires earlier.
    pub shortened: bool,
}

impl Authority {
    /// Creates an authority that is valid from `now` for the duration `validity`.
    ///
    /// # Errors
    ///
    /// If the name is not allowed in a certificate, or the system's random number generator fails.
    pub fn new(name: &str, now: Timestamp, validity: Duration) -> Result<Authority, CaError> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(CaError::Name(name.to_owned()));
        }
        let key = new_key()?;
        let mut params = params(name, now, validity);
        // The authority certifies hosts only, no intermediate authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Authority::of_pem(pem, key, Path::new(CERTIFICATE))
    }

    /// Reads the authority in the directory `dir`.
    ///
    /// # Errors
    ///
    /// If there is none, or if its key is readable by other users or does not match its certificate.
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

    pub(super) fn of_pem(pem: String, key: KeyPair, path: &Path) -> Result<Authority, CaError> {
        let wrong = |problem| CaError::Content { path: path.into(), problem };
        let certificate = Certificate::all_of_pem(&pem, path)?.swap_remove(0);
        if !certificate.authority {
            return Err(wrong("is not a CA certificate"));
        }
        if certificate.public_key != key.subject_public_key_info() {
            return Err(wrong("does not match the private key next to it"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)?;
        Ok(Authority { pem, certificate, issuer })
    }

    /// Writes the authority to the directory `dir`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// If the directory already contains an authority, or cannot be written to.
    pub fn write(&self, dir: &Path) -> Result<(), CaError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        // Checked before anything is written, so that no incomplete authority is left behind.
        if let Some(path) = [&certificate, &key].into_iter().find(|path| path.exists()) {
            return Err(CaError::Exists { path: path.clone() });
        }
        files::make_folder(dir)?;
        files::write_new(&key, &self.issuer.key().serialize_pem(), files::SECRET)?;
        files::write_new(&certificate, &self.pem, files::PUBLIC).inspect_err(|_| {
            let _ = std::fs::remove_file(&key);
        })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Issues a certificate for a host and its key, or a new key if none is given.
    ///
    /// # Errors
    ///
    /// If the authority itself has expired.
    pub fn issue(
        &self,
        host: &HostName,
        addresses: &[IpAddr],
        key: Option<KeyPair>,
        now: Timestamp,
        validity: Duration,
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
        let mut params = params(host.as_str(), now, validity.min(left));
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
        Ok(Issued { chain, key, certificate, shortened: validity > left })
    }
}

/// Reads the certificates in the file at `path`, in order; at least one.
///
/// # Errors
///
/// If the file cannot be read, or does not contain valid certificates.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CaError> {
    Certificate::all_of_pem(&files::read(path)?, path)
}

fn params(name: &str, now: Timestamp, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // RFC 5280, 4.1.2.2: unique per certificate of an authority. A serial derived from the key would repeat on renewal.
    params.serial_number = Some(SerialNumber::from(rand::random::<[u8; SERIAL]>().to_vec()));
    let now = SystemTime::from(now);
    params.not_before = (now - CLOCKS_APART).into();
    params.not_after = (now + validity).into();
    params
}
