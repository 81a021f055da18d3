//! Parsing of certificates.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use pmd_protocol::peer::NodeId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::error::CaError;
use crate::auth::revocation::Serial;

/// A certificate and its fields for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The encoded certificate.
    pub der: CertificateDer<'static>,
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The host's names.
    pub names: Vec<String>,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a CA certificate.
    pub authority: bool,
    /// Start of the validity period.
    pub not_before: Timestamp,
    /// End of the validity period.
    pub not_after: Timestamp,
    /// The serial number.
    pub serial: Serial,
    /// The identifier of its key, for those that it signs.
    pub(super) key_id: Option<Vec<u8>>,
    /// The public key as `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
}

impl Certificate {
    /// Parses the certificates in `text`, the content of the file at `path`; at least one.
    ///
    /// # Errors
    ///
    /// If there is none, or one cannot be parsed.
    pub(super) fn all_of_pem(text: &str, path: &Path) -> Result<Vec<Certificate>, CaError> {
        let wrong = |problem| CaError::Content { path: path.into(), problem };
        let mut all = Vec::new();
        for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let der = der.map_err(|_| wrong("is not a PEM file"))?;
            all.push(Certificate::of_der(der.into_owned(), path)?);
        }
        if all.is_empty() {
            return Err(wrong("contains no certificate"));
        }
        Ok(all)
    }

    /// Parses one certificate of the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be parsed.
    pub(super) fn of_der(der: CertificateDer<'static>, path: &Path) -> Result<Certificate, CaError> {
        let wrong = || CaError::Content {
            path: path.into(),
            problem: "contains a certificate that cannot be parsed",
        };
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| wrong())?;
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        let alternatives = parsed.subject_alternative_name().map_err(|_| wrong())?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let constraints = parsed.basic_constraints().map_err(|_| wrong())?;
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| wrong());
        let certificate = Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names,
            addresses,
            authority: constraints.is_some_and(|constraints| constraints.value.ca),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            serial: Serial::new(parsed.raw_serial()),
            key_id: parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }),
            public_key: parsed.public_key().raw.to_vec(),
            der: CertificateDer::from(Vec::new()),
        };
        Ok(Certificate { der, ..certificate })
    }

    /// The SHA-256 fingerprint of the certificate as 64 hexadecimal digits.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.der).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The id of the daemon with this certificate.
    pub fn node_id(&self) -> NodeId {
        NodeId::new(Sha256::digest(&self.public_key).into())
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
