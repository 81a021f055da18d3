//! Whether this daemon rejected others, or others rejected it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::finding::Finding;
use crate::base::text::{count, span};
use crate::control::api::{Refusal, RefusalList};

const CHECK: &str = "refused daemons";
/// A rejected daemon retries within about a minute, so an older rejection is a problem that has been fixed.
const LATELY_SECONDS: i64 = 3600;
/// Addresses named in a finding.
const NAMED: usize = 5;

pub(super) fn judge(now: Timestamp, list: Option<&RefusalList>) -> Vec<Finding> {
    let Some(list) = list else { return vec![Finding::unchecked(CHECK)] };
    let mut groups: BTreeMap<(bool, &str), Vec<(&Refusal, i64)>> = BTreeMap::new();
    for refusal in &list.refusals {
        let seconds = now.as_second().saturating_sub(refusal.last_at.as_second()).max(0);
        if seconds < LATELY_SECONDS {
            groups.entry((refusal.dialled, &refusal.reason)).or_default().push((refusal, seconds));
        }
    }
    let findings: Vec<Finding> = groups
        .iter()
        .filter_map(|((dialled, reason), group)| {
            Some(Finding::warn(CHECK, describe(*dialled, group), remedy(*dialled, reason)?))
        })
        .collect();
    if findings.is_empty() {
        return vec![Finding::pass(CHECK, "no daemon was rejected within the last hour")];
    }
    findings
}

fn describe(dialled: bool, group: &[(&Refusal, i64)]) -> String {
    let each = group.iter().take(NAMED).map(|(refusal, seconds)| {
        let (address, what) = (refusal.address, &refusal.what);
        let number = usize::try_from(refusal.count).unwrap_or(usize::MAX);
        let ago = span(u64::try_from(*seconds).unwrap_or(0));
        if dialled {
            let attempts = count(number, "connection attempt", "connection attempts");
            format!("{attempts} to {address} failed, the last {ago} ago: {what}")
        } else {
            let times = count(number, "time", "times");
            format!("{address} was rejected {times}, the last time {ago} ago: {what}")
        }
    });
    let mut text = each.collect::<Vec<_>>().join("; ");
    if group.len() > NAMED {
        text += &format!("; and {} more addresses", group.len() - NAMED);
    }
    text
}

/// What to do about it; none if the peer is not a daemon, such as a port scanner.
fn remedy(dialled: bool, reason: &str) -> Option<&'static str> {
    Some(match reason {
        "cookie" if dialled => {
            "copy the cluster secret from that host (pmd cookie path), then run pmd reload here"
        }
        "cookie" => "copy the cluster secret to that host (pmd cookie path), then run pmd reload there",
        "tls" => {
            "check that both hosts have certificates of the same authority (pmd ca show FILE) and correct clocks"
        }
        "cluster" => "set the same cluster in both configuration files, or remove that host from the seeds",
        "version" => "update pmd on the host with the older version (pmd version)",
        "identity" => "check that host_name there matches its certificate (pmd ca show FILE)",
        "other" => "one host has a copy of the other's key: remove its node-PORT.key and restart its daemon",
        "expelled" => "stop pmd on that host, or let it return (pmd readmit) if it was expelled by mistake",
        "revoked" => {
            "if that host is to return, issue a new certificate: pmd ca issue HOST; otherwise stop pmd there"
        }
        "refused" => "run pmd doctor on that host to see why it rejects this one",
        "share" => "look at that member (pmd nodes); if it is in somebody else's hands, pmd expel it",
        "rule" => "allow it in the tunnel rules of this host's configuration, if it should connect",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn old_rejections_and_noise_are_not_findings() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let refusal = |reason: &str, last| Refusal {
            address: "10.0.0.7".parse().expect("an address"),
            dialled: false,
            reason: reason.into(),
            what: "cookie mismatch".into(),
            count: 12,
            first_at: at(0),
            last_at: at(last),
        };
        let of = |refusals| judge(at(10_000), Some(&RefusalList { refusals }));
        for refusals in [vec![], vec![refusal("protocol", 9_999)], vec![refusal("cookie", 6_000)]] {
            let findings = of(refusals);
            assert!(findings.len() == 1 && findings[0].verdict == Verdict::Pass, "{findings:?}");
        }
        let findings = of(vec![refusal("cookie", 9_997), refusal("tls", 9_000)]);
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].what, "10.0.0.7 was rejected 12 times, the last time 3s ago: cookie mismatch");
        assert_eq!(judge(at(0), None)[0].verdict, Verdict::Warn);
    }
}
