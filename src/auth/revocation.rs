//! Lists of revoked certificates (RFC 5280, section 5), and which certificates they are about.
//!
//! A list is used only after its signature was verified with the certificate of an authority that this daemon trusts, so it
//! may come from anybody. The dates in it are not checked: a list never expires, because an authority on
//! a laptop cannot issue one every week, and a revocation must not end with the list. Which of two lists counts is
//! decided by their numbers.
//!
//! Certificates are identified by issuer and serial number, as in the standard. Keys are not revoked, but
//! `pmd ca issue` does not certify the key of a revoked certificate again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use pmd_protocol::limits::MAX_REVOCATION_LIST;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::keys::{is_identifier, is_signed};

/// Longest serial number in bytes (RFC 5280, section 4.1.2.2).
const MAX_SERIAL: usize = 20;

/// The serial number of a certificate, without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(Vec<u8>);

/// The error of a text that is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a serial number has up to {} hexadecimal digits; pmd ca show FILE prints that of a certificate", 2 * MAX_SERIAL)]
pub struct NotASerial;

impl Serial {
    /// The number with these bytes, most significant first.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Serial {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Serial(bytes.get(zeros..).unwrap_or_default().to_vec())
    }

    /// Its bytes, most significant first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(if self.0.is_empty() { &[0] } else { &self.0 }))
    }
}

impl FromStr for Serial {
    type Err = NotASerial;

    /// Colons between the digits, as other programs print them, are ignored.
    fn from_str(text: &str) -> Result<Serial, NotASerial> {
        let mut digits = text.trim().replace(':', "").to_ascii_lowercase();
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        let bytes = HEXLOWER.decode(digits.as_bytes()).map_err(|_| NotASerial)?;
        let serial = Serial::new(&bytes);
        if digits.is_empty() || serial.0.len() > MAX_SERIAL { Err(NotASerial) } else { Ok(serial) }
    }
}

/// What identifies the certificates that a daemon has presented: its own, and those between it and the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIds {
    /// The issuer's name in DER and the serial number of each.
    ids: Vec<(Vec<u8>, Serial)>,
    /// The first host name in the daemon's own certificate.
    host: String,
}

impl CertificateIds {
    /// Reads a chain of certificates, the daemon's own first; `None` if one of them cannot be read.
    #[must_use]
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Option<CertificateIds> {
        let (mut ids, mut host) = (Vec::new(), None);
        for certificate in chain {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            host = host.or_else(|| Some(host_name(&parsed)));
            ids.push((parsed.issuer().as_raw().to_vec(), Serial::new(parsed.raw_serial())));
        }
        Some(CertificateIds { ids, host: host? })
    }

    /// The host that the daemon's own certificate is for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

fn host_name(certificate: &X509Certificate<'_>) -> String {
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut names = names.iter().flat_map(|extension| &extension.value.general_names);
    let name = names.find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    name.unwrap_or_else(|| certificate.subject().to_string())
}

/// Why a list does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// It is too long.
    #[error("the list of revoked certificates has {0} bytes, more than {MAX_REVOCATION_LIST}")]
    TooLong(usize),
    /// It is not a list, or one of a kind that is not supported.
    #[error("the list of revoked certificates {0}")]
    Malformed(&'static str),
    /// It is that of an authority that is not trusted here.
    #[error("the list of revoked certificates is not one of this daemon's certificate authority")]
    Foreign,
    /// It claims to be that of a trusted authority, which has not signed it.
    #[error("the list of revoked certificates has no valid signature of the certificate authority")]
    Forged,
}

/// A certificate authority whose lists count.
#[derive(Debug, Clone)]
struct ListSigner {
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// As SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
}

/// The authorities whose lists count.
#[derive(Debug, Clone)]
pub struct ListSigners {
    signers: Vec<ListSigner>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ListSigners {
    /// The authorities with these certificates. One that cannot be read signs no lists.
    #[must_use]
    pub fn new(certificates: &[CertificateDer<'_>], algorithms: WebPkiSupportedAlgorithms) -> ListSigners {
        let signer = |der: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(der).ok()?;
            let key_id =
                parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                });
            let (subject, public_key) =
                (parsed.subject().as_raw().to_vec(), parsed.public_key().raw.to_vec());
            Some(ListSigner { subject, key_id, public_key })
        };
        ListSigners { signers: certificates.iter().filter_map(signer).collect(), algorithms }
    }

    /// Verifies a list in DER.
    ///
    /// # Errors
    ///
    /// If it is not one that an authority among these has signed.
    pub fn verify(&self, der: &[u8]) -> Result<VerifiedList, RevocationError> {
        use RevocationError::{Foreign, Forged, Malformed, TooLong};
        if der.len() > MAX_REVOCATION_LIST {
            return Err(TooLong(der.len()));
        }
        let Ok((rest, parsed)) = CertificateRevocationList::from_der(der) else {
            return Err(Malformed("cannot be read"));
        };
        if !rest.is_empty() {
            return Err(Malformed("is followed by other bytes"));
        }
        let extensions = parsed.extensions();
        // Such an extension changes what the list means: that it is only a part of one, for example.
        let entries = parsed.iter_revoked_certificates().flat_map(|entry| entry.extensions());
        if extensions.iter().chain(entries).any(|extension| extension.critical) {
            return Err(Malformed("has a critical extension, which is not supported"));
        }
        let number = parsed.crl_number().ok_or(Malformed("has no number"))?;
        let number = u64::try_from(number).map_err(|_| Malformed("has a number of more than 64 bits"))?;
        let signer = self.signer(parsed.issuer().as_raw(), extensions).ok_or(Foreign)?;
        let (_, key) = SubjectPublicKeyInfo::from_der(&signer.public_key).map_err(|_| Forged)?;
        let is_meant = |id: &[u8]| is_identifier(id, &parsed.signature_algorithm);
        let algorithms = self.algorithms.all.iter().filter(|one| is_meant(&one.signature_alg_id()));
        let signature = &parsed.signature_value.data;
        if !is_signed(algorithms.copied(), &key, parsed.tbs_cert_list.as_ref(), signature) {
            return Err(Forged);
        }
        let time = |time: ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| Malformed("has a date that cannot be read"))
        };
        let mut revoked = BTreeMap::new();
        for entry in parsed.iter_revoked_certificates() {
            revoked.insert(Serial::new(entry.raw_serial()), time(entry.revocation_date)?);
        }
        Ok(VerifiedList {
            authority: Sha256::digest(&signer.public_key).into(),
            issuer_name: parsed.issuer().to_string(),
            issuer: signer.subject.clone(),
            signed: Sha256::digest(parsed.tbs_cert_list.as_ref()).into(),
            number,
            updated: time(parsed.last_update())?,
            revoked,
            der: der.to_vec(),
        })
    }

    /// Whether an authority among these has signed this certificate. Dates are not checked.
    #[must_use]
    pub fn has_issued(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let is_meant = |id: &[u8]| is_identifier(id, &parsed.signature_algorithm);
        let (message, signature) = (parsed.tbs_certificate.as_ref(), &parsed.signature_value.data);
        self.signers.iter().any(|signer| {
            let algorithms = self.algorithms.all.iter().filter(|one| is_meant(&one.signature_alg_id()));
            SubjectPublicKeyInfo::from_der(&signer.public_key)
                .is_ok_and(|(_, key)| is_signed(algorithms.copied(), &key, message, signature))
        })
    }

    /// The authority that a list of this issuer, with these extensions, is said to be of. Its name may be that of several.
    fn signer(&self, issuer: &[u8], extensions: &[X509Extension<'_>]) -> Option<&ListSigner> {
        let key_id = extensions.iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
        self.signers.iter().find(|signer| {
            let is_other = matches!((key_id, &signer.key_id), (Some(said), Some(own)) if said != own);
            signer.subject == issuer && !is_other
        })
    }
}

/// A list that its authority has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedList {
    /// The hash of the authority's public key.
    authority: [u8; 32],
    /// The name of the authority in DER.
    issuer: Vec<u8>,
    /// The name of the authority.
    pub issuer_name: String,
    /// The hash of what is signed. The rest of the list can be written in more than one form.
    signed: [u8; 32],
    /// Orders the lists of an authority.
    pub number: u64,
    /// When it was made, by the clock of the authority.
    pub updated: Timestamp,
    /// The revoked certificates, and when each was revoked.
    pub revoked: BTreeMap<Serial, Timestamp>,
    /// The list in DER.
    pub der: Vec<u8>,
}

impl VerifiedList {
    /// The list in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        const LINE: usize = 64;
        let digits = data_encoding::BASE64.encode(&self.der);
        let mut text = "-----BEGIN X509 CRL-----\n".to_owned();
        for line in digits.as_bytes().chunks(LINE) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text + "-----END X509 CRL-----\n"
    }

    /// Whether this list replaces `other`, which is of the same authority. If two copies of an authority have used a number
    /// twice, all daemons choose the same one of the two lists.
    #[must_use]
    pub fn is_newer_than(&self, other: &VerifiedList) -> bool {
        (self.number, self.signed) > (other.number, other.signed)
    }

    /// Whether both are lists of one authority.
    #[must_use]
    pub fn is_of_same_authority(&self, other: &VerifiedList) -> bool {
        self.authority == other.authority
    }

    /// The first of these certificates that is revoked.
    fn first_of<'a>(&self, certificates: &'a CertificateIds) -> Option<&'a Serial> {
        let is_revoked = |(issuer, serial): &&(Vec<u8>, Serial)| {
            *issuer == self.issuer && self.revoked.contains_key(serial)
        };
        certificates.ids.iter().find(is_revoked).map(|(_, serial)| serial)
    }
}

/// Reads the lists in a text in PEM, in order.
///
/// # Errors
///
/// If one cannot be read.
pub fn lists_of_pem(text: &str) -> Result<Vec<Vec<u8>>, RevocationError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(text.as_bytes());
    let list = |list: Result<CertificateRevocationListDer<'_>, _>| list.map(|list| list.as_ref().to_vec());
    lists.map(list).collect::<Result<_, _>>().map_err(|_| RevocationError::Malformed("is not in PEM"))
}

/// The latest list of each authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifiedLists(BTreeMap<[u8; 32], Arc<VerifiedList>>);

impl VerifiedLists {
    /// Adds a list unless a newer one of its authority is known. Returns whether it was added.
    pub fn add(&mut self, list: Arc<VerifiedList>) -> bool {
        let is_news = self.0.get(&list.authority).is_none_or(|known| list.is_newer_than(known));
        if is_news {
            self.0.insert(list.authority, list);
        }
        is_news
    }

    /// The latest list of the authority of `list`.
    #[must_use]
    pub fn of_same_authority(&self, list: &VerifiedList) -> Option<&Arc<VerifiedList>> {
        self.0.get(&list.authority)
    }

    /// All lists.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VerifiedList>> {
        self.0.values()
    }

    /// The first of these certificates that is revoked.
    #[must_use]
    pub fn revoked<'a>(&self, certificates: &'a CertificateIds) -> Option<&'a Serial> {
        self.iter().find_map(|list| list.first_of(certificates))
    }
}
