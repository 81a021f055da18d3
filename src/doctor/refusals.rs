//! Whether others were not let in, or have not let this daemon in.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Finding;
use crate::base::text::{count, span};
use crate::control::api::{Refusal, RefusalList};

const CHECK: &str = "refused daemons";
/// Who is refused tries again within a minute or so: what was not for that long is remedied.
const LATELY_SECONDS: i64 = 3600;
/// Addresses that are named.
const NAMED: usize = 5;

pub(super) fn judge(now: Timestamp, list: Option<&RefusalList>) -> Vec<Finding> {
    let Some(list) = list else { return vec![Finding::unasked(CHECK)] };
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
        return vec![Finding::pass(CHECK, "no daemon was refused within the last hour")];
    }
    findings
}

fn describe(dialled: bool, group: &[(&Refusal, i64)]) -> String {
    let each = group.iter().take(NAMED).map(|(refusal, seconds)| {
        let (address, what) = (refusal.address, &refusal.what);
        let times = count(usize::try_from(refusal.count).unwrap_or(usize::MAX), "time", "times");
        let ago = span(u64::try_from(*seconds).unwrap_or(0));
        if dialled {
            format!("no link to {address} came about, {times}, last {ago} ago: {what}")
        } else {
            format!("{address} was refused {times}, last {ago} ago: {what}")
        }
    });
    let mut text = each.collect::<Vec<_>>().join("; ");
    if group.len() > NAMED {
        text += &format!("; and {} more addresses", group.len() - NAMED);
    }
    text
}

/// What to do about it; none if it is not a matter between two daemons, as what scanners of ports leave behind.
fn remedy(dialled: bool, reason: &str) -> Option<&'static str> {
    Some(match reason {
        "cookie" if dialled => "copy the cookie file from that host (pmd cookie path), then pmd reload here",
        "cookie" => "copy the cookie file to that host (pmd cookie path), then pmd reload there",
        "tls" => {
            "see that both hosts have certificates of the same authority (pmd ca show FILE) and right clocks"
        }
        "cluster" => {
            "set the same cluster in both configuration files, or take that host off the list of seeds"
        }
        "version" => "update pmd on the host with the older version (pmd version)",
        "identity" => "see that host_name there is what its certificate says (pmd ca show FILE)",
        "other" => "one host has a copy of the other's key: remove its node-PORT.key and restart it",
        "refused" => "run pmd doctor on that host, which says why it refuses this one",
        "rule" => "allow it in the tunnel rules of this host's configuration, if it shall be",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_long_ago_or_only_noise_is_no_finding() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let refusal = |reason: &str, last| Refusal {
            address: "10.0.0.7".parse().expect("an address"),
            dialled: false,
            reason: reason.into(),
            what: "its cookie is another one".into(),
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
        assert_eq!(findings[0].what, "10.0.0.7 was refused 12 times, last 3s ago: its cookie is another one");
        assert_eq!(judge(at(0), None)[0].verdict, Verdict::Warn);
    }
}
