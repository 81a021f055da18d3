//! When the certificates expire.

use jiff::Timestamp;

use super::finding::Finding;
use crate::auth::authority::{CaError, read_certificates};
use crate::base::text::span;
use crate::config::types::IdentitySource;

const CHECK: &str = "certificates";
/// Warn this long before expiry: enough time to renew a certificate in working hours.
const SOON_SECONDS: i64 = 14 * 24 * 3600;

pub(super) fn check(identity: &IdentitySource) -> Finding {
    let IdentitySource::Authority { ca, certificate, .. } = identity else {
        return Finding::pass(CHECK, "a self-signed key, which does not expire");
    };
    let both = [ca, certificate].map(|path| Ok((path.display().to_string(), expiry(path)?)));
    judge(Timestamp::now(), both.into_iter().collect())
}

fn expiry(path: &std::path::Path) -> Result<Option<Timestamp>, CaError> {
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
