//! Whether the certificates are revoked, and when they expire.

use std::path::Path;

use jiff::Timestamp;

use super::finding::Finding;
use crate::auth::authority::{CaError, read_certificates};
use crate::base::text::span;
use crate::config::types::IdentitySource;
use crate::control::api::RevocationLists;

const CHECK: &str = "certificates";
/// Warn this long before expiry: enough time to renew a certificate in working hours.
const SOON_SECONDS: i64 = 14 * 24 * 3600;

pub(super) fn check(identity: &IdentitySource, revoked: Option<&RevocationLists>) -> Finding {
    let IdentitySource::Authority { ca, certificate, .. } = identity else {
        return Finding::pass(CHECK, "a self-signed key, which does not expire");
    };
    if let Some(found) = revoked.and_then(|lists| find_revoked(certificate, lists)) {
        return found;
    }
    let both = [ca, certificate].map(|path| Ok((path.display().to_string(), expiry(path)?)));
    judge(Timestamp::now(), both.into_iter().collect())
}

/// A finding if the authority has revoked the certificate in this file.
fn find_revoked(path: &Path, lists: &RevocationLists) -> Option<Finding> {
    let own = read_certificates(path).ok()?.into_iter().next()?;
    let serial = own.serial.to_string();
    let of_issuer = lists.lists.iter().filter(|list| list.issuer == own.issuer);
    let is_revoked = of_issuer.flat_map(|list| &list.revoked).any(|one| one.serial == serial);
    let what = format!("{} is revoked (serial number {serial})", path.display());
    let remedy = "issue a new one with a new key (pmd ca issue HOST), copy both here, and restart pmd";
    is_revoked.then(|| Finding::fail(CHECK, what, remedy))
}

fn expiry(path: &Path) -> Result<Option<Timestamp>, CaError> {
    Ok(read_certificates(path)?.into_iter().map(|certificate| certificate.not_after).min())
}

fn judge(now: Timestamp, ends: Result<Vec<(String, Option<Timestamp>)>, CaError>) -> Finding {
    let ends = match ends {
        Ok(ends) => ends,
        Err(error) => return Finding::fail(CHECK, error.to_string(), error.hint()),
    };
    let renew = "renew it: pmd ca issue HOST (for the authority: pmd ca init), then pmd reload";
    let first = ends.into_iter().filter_map(|(path, end)| Some((end?, path))).min();
    let Some((end, path)) = first else {
        return Finding::fail(CHECK, "the files contain no certificate", "issue one: pmd ca issue HOST");
    };
    let left = end.as_second() - now.as_second();
    let lasts = span(u64::try_from(left).unwrap_or(0));
    match left {
        ..=0 => Finding::fail(CHECK, format!("{path} has expired"), renew),
        1..SOON_SECONDS => Finding::warn(CHECK, format!("{path} expires in {lasts}"), renew),
        _ => Finding::pass(CHECK, format!("{path} expires first, in {lasts}")),
    }
}
