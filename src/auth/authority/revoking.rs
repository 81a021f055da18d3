//! Revoking certificates: the record of those that were issued, and the authority's list of revoked ones.
//!
//! Both are files beside the authority. The record, one line per certificate, tells which serial numbers a host has, and
//! which keys must not be certified again. It is not secret, and it is not needed to verify anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use pmd_protocol::peer::NodeId;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustix::fs::FlockOperation;
use rustls::crypto::aws_lc_rs;

use super::certificate::Certificate;
use super::error::CaError;
use super::files;
use super::issuer::{Authority, DAY, HostName, read_certificates};
use crate::auth::revocation::{ListSigners, Serial, VerifiedList, lists_of_pem};

/// The file name of an authority's list of revoked certificates.
pub const REVOKED: &str = "revoked.pem";
/// The file name of the record of issued certificates.
const ISSUED: &str = "issued";
/// The file name of the keys whose certificates were revoked, by the ids of their daemons. The list does not tell them, and
/// it forgets certificates that have expired.
const KEYS: &str = "revoked-keys";

/// A certificate in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedRecord {
    /// Its serial number.
    pub serial: Serial,
    /// When it expires, in seconds since the Unix epoch.
    not_after: i64,
    /// The id of the daemon with its key.
    id: NodeId,
    /// Its host.
    pub host: String,
}

impl IssuedRecord {
    fn of(certificate: &Certificate, host: &str) -> IssuedRecord {
        IssuedRecord {
            serial: certificate.serial.clone(),
            not_after: certificate.not_after.as_second(),
            id: certificate.node_id(),
            host: host.to_owned(),
        }
    }

    fn of_line(line: &str) -> Option<IssuedRecord> {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next();
        let (serial, not_after, id) = (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse().ok()?);
        Some(IssuedRecord { serial, not_after, id, host: word()?.to_owned() })
    }

    fn line(&self) -> String {
        let IssuedRecord { serial, not_after, id, host } = self;
        format!("{serial} {not_after} {id} {host}\n")
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        // A day later, so that no clock of the cluster takes it for valid.
        now.as_second() > self.not_after.saturating_add(DAY.as_secs().cast_signed())
    }
}

/// Which certificates are to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoke {
    /// All that were issued for a host.
    Host(HostName),
    /// The one with a serial number.
    Serial(Serial),
    /// The first one in a file.
    Certificate(PathBuf),
}

/// The result of [`revoke`].
#[derive(Debug, Clone)]
pub struct Revoked {
    /// The certificates that are revoked by this, with their hosts as far as they are known; empty if all were revoked
    /// before.
    pub new: BTreeMap<Serial, Option<String>>,
    /// The authority's list.
    pub list: VerifiedList,
    /// The file that holds it.
    pub path: PathBuf,
}

/// Prevents that two commands change the files of an authority at the same time, until the result is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, CaError> {
    let failed = |source| CaError::Read { path: dir.into(), source };
    let folder = File::open(dir).map_err(failed)?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(folder)
}

/// Records an issued certificate, unless it is in the record.
pub(super) fn record(dir: &Path, certificate: &Certificate, host: &str) -> Result<(), CaError> {
    let new = IssuedRecord::of(certificate, host);
    if issued(dir)?.iter().any(|known| known.serial == new.serial) {
        return Ok(());
    }
    files::append(&dir.join(ISSUED), &new.line())
}

/// The certificates that the authority in `dir` has issued since it keeps a record.
///
/// # Errors
///
/// If the record cannot be read.
pub fn issued(dir: &Path) -> Result<Vec<IssuedRecord>, CaError> {
    let path = dir.join(ISSUED);
    let Some(text) = files::read_if_there(&path)? else { return Ok(Vec::new()) };
    let wrong = || CaError::Content { path: path.clone(), problem: "has a line that is not a certificate" };
    text.lines().map(|line| IssuedRecord::of_line(line).ok_or_else(wrong)).collect()
}

impl Authority {
    fn list_signers(&self) -> ListSigners {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        ListSigners::new(std::slice::from_ref(&self.certificate.der), algorithms)
    }

    /// The authority's list of revoked certificates, if it has revoked any.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds something else.
    pub(super) fn list(&self, dir: &Path) -> Result<Option<VerifiedList>, CaError> {
        let path = dir.join(REVOKED);
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        let list = lists_of_pem(&text).map(|lists| lists.into_iter().next());
        let Ok(Some(der)) = list else {
            return Err(CaError::Content { path, problem: "contains no list of revoked certificates" });
        };
        Ok(Some(self.list_signers().verify(&der)?))
    }

    /// Signs a list of these certificates, each with the time when it was revoked.
    fn sign_list(
        &self,
        number: u64,
        revoked: &BTreeMap<Serial, Timestamp>,
        now: Timestamp,
    ) -> Result<VerifiedList, CaError> {
        let end = self.certificate.not_after;
        if end <= now {
            return Err(CaError::Ended(end));
        }
        let certificate = |(serial, time): (&Serial, &Timestamp)| RevokedCertParams {
            serial_number: SerialNumber::from(serial.as_bytes().to_vec()),
            revocation_time: SystemTime::from(*time).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: SystemTime::from(now).into(),
            // Nothing that the authority has issued is valid after that, so nobody needs a list then. Daemons do not look at
            // it; other programs must not take the list for outdated before.
            next_update: SystemTime::from(end).into(),
            crl_number: SerialNumber::from(number.to_be_bytes().to_vec()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(certificate).collect(),
            key_identifier_method: match &self.certificate.key_id {
                Some(id) => KeyIdMethod::PreSpecified(id.clone()),
                None => KeyIdMethod::Sha256,
            },
        };
        let signed = params.signed_by(&self.issuer)?;
        Ok(self.list_signers().verify(signed.der())?)
    }

    /// The certificates that are meant, with their hosts.
    fn meant(
        &self,
        dir: &Path,
        revoke: &Revoke,
        now: Timestamp,
    ) -> Result<BTreeMap<Serial, Option<String>>, CaError> {
        let records = issued(dir)?;
        let all = |records: Vec<&IssuedRecord>| {
            records.into_iter().map(|one| (one.serial.clone(), Some(one.host.clone()))).collect()
        };
        match revoke {
            Revoke::Serial(serial) => {
                let host = records.iter().find(|one| one.serial == *serial).map(|one| one.host.clone());
                Ok(BTreeMap::from([(serial.clone(), host)]))
            }
            Revoke::Certificate(path) => {
                let certificate = read_certificates(path)?.swap_remove(0);
                if certificate.authority || !self.has_issued(&certificate) {
                    let problem = "is not a certificate that this authority has issued for a host";
                    return Err(CaError::Content { path: path.clone(), problem });
                }
                // Its key must not be certified again.
                let host = certificate.names.first().unwrap_or(&certificate.subject).clone();
                record(dir, &certificate, &host.replace(char::is_whitespace, "_"))?;
                Ok(BTreeMap::from([(certificate.serial, Some(host))]))
            }
            Revoke::Host(host) => {
                let name = host.as_str();
                let exact = records.iter().filter(|one| one.host == name).collect::<Vec<_>>();
                if !exact.is_empty() {
                    return Ok(all(exact.into_iter().filter(|one| !one.has_expired(now)).collect()));
                }
                // Issued by a version that kept no record.
                let path = dir.join(format!("{name}.pem"));
                if path.exists() {
                    return self.meant(dir, &Revoke::Certificate(path), now);
                }
                let is_short = |one: &&IssuedRecord| {
                    one.host.split_once('.').is_some_and(|(short, _)| short == name) && !one.has_expired(now)
                };
                let short: Vec<_> = records.iter().filter(is_short).collect();
                let hosts: BTreeSet<_> = short.iter().map(|one| one.host.as_str()).collect();
                match hosts.len() {
                    0 => Err(CaError::NotIssued(name.to_owned())),
                    1 => Ok(all(short)),
                    _ => {
                        Err(CaError::Several(name.to_owned(), hosts.into_iter().map(str::to_owned).collect()))
                    }
                }
            }
        }
    }

    fn has_issued(&self, certificate: &Certificate) -> bool {
        self.list_signers().has_issued(&certificate.der)
    }
}

/// Whether a certificate with this key was revoked: such a key is in other hands. The id is that of its daemon, and
/// `certificate` the file beside the key.
pub(super) fn is_revoked_key(
    authority: &Authority,
    dir: &Path,
    id: NodeId,
    certificate: &Path,
) -> Result<bool, CaError> {
    let keys = files::read_if_there(&dir.join(KEYS))?.unwrap_or_default();
    let list = authority.list(dir)?;
    let is_listed =
        |one: &Certificate| list.as_ref().is_some_and(|list| list.revoked.contains_key(&one.serial));
    // Of a certificate that was revoked by its number, only the file may know the key.
    let beside = read_certificates(certificate).unwrap_or_default();
    Ok(keys.lines().any(|line| line.parse() == Ok(id))
        || beside.iter().any(|one| one.node_id() == id && is_listed(one)))
}

/// Revokes certificates of the authority in `dir`: writes a new list beside it, with a higher number. `known` are lists in
/// DER that a daemon has, in case it has a newer one than the folder.
///
/// # Errors
///
/// If the authority cannot be read or its list not written, or if no such certificate was issued.
pub fn revoke(dir: &Path, revoke: &Revoke, known: &[Vec<u8>], now: Timestamp) -> Result<Revoked, CaError> {
    let authority = Authority::read(dir)?;
    let _lock = lock(dir)?;
    let own = authority.list(dir)?;
    let signers = authority.list_signers();
    let of_daemon = known.iter().filter_map(|der| signers.verify(der).ok());
    let mut lists: Vec<VerifiedList> = own.clone().into_iter().chain(of_daemon).collect();
    lists.sort_by_key(|list| list.number);
    let mut all = BTreeMap::new();
    // Of what was revoked, nothing is ever taken back: a copy of the folder may not know of it.
    for list in &lists {
        for (serial, time) in &list.revoked {
            all.entry(serial.clone()).or_insert(*time);
        }
    }
    let mut new = authority.meant(dir, revoke, now)?;
    new.retain(|serial, _| !all.contains_key(serial));
    let path = dir.join(REVOKED);
    let is_complete = own.as_ref().is_some_and(|own| all.keys().all(|one| own.revoked.contains_key(one)));
    if let (true, true, Some(list)) = (new.is_empty(), is_complete, own) {
        return Ok(Revoked { new, list, path });
    }
    all.extend(new.keys().map(|serial| (serial.clone(), now)));
    // What has expired needs no revocation, and the list has a maximum size.
    for expired in issued(dir)?.iter().filter(|one| one.has_expired(now)) {
        all.remove(&expired.serial);
    }
    let number = lists.last().map_or(0, |list| list.number).saturating_add(1);
    let list = authority.sign_list(number, &all, now)?;
    for known in issued(dir)?.iter().filter(|one| new.contains_key(&one.serial)) {
        files::append(&dir.join(KEYS), &format!("{}\n", known.id))?;
    }
    files::replace(&path, &list.pem(), files::PUBLIC)?;
    Ok(Revoked { new, list, path })
}

/// The list of the authority in `dir`, if it has revoked any certificates.
///
/// # Errors
///
/// If there is no authority, or its list cannot be read.
pub fn list(dir: &Path) -> Result<Option<VerifiedList>, CaError> {
    Authority::read(dir)?.list(dir)
}

/// Reads the list in a file, in PEM, without the authority whose list it is.
///
/// # Errors
///
/// If the file cannot be read, or holds no list.
pub fn read_list(path: &Path) -> Result<String, CaError> {
    let text = files::read(path)?;
    match lists_of_pem(&text) {
        Ok(lists) if !lists.is_empty() => Ok(text),
        _ => {
            let problem = "contains no list of revoked certificates";
            Err(CaError::Content { path: path.into(), problem })
        }
    }
}

#[cfg(test)]
mod tests;
