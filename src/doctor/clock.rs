//! This host's clock, compared with the clocks of its peers and the start times of members.
//!
//! Peers send their time when a link is established. If this host's clock is far from the median of the peers' clocks,
//! this host's clock is wrong. The clock of a member without a link is wrong if its start time is in the future.

use std::time::Duration;

use jiff::Timestamp;

use super::finding::Finding;
use crate::auth::authority::CLOCKS_APART;
use crate::base::text::{count, listed, span};
use crate::control::api::{NodeList, Peer, PeerList};

const CHECK: &str = "clock";
const REMEDY: &str = "set the clock by NTP: timedatectl set-ntp true";
/// Smaller differences do no harm, and logs can still be compared.
const ALLOWED: Duration = Duration::from_secs(5);
/// Hosts named in a finding.
const NAMED: usize = 5;

pub(super) fn judge(now: Timestamp, members: Option<&NodeList>, peers: Option<&PeerList>) -> Finding {
    let Some(members) = members else { return Finding::unchecked(CHECK) };
    let reported: Vec<(&Peer, i64)> = peers
        .into_iter()
        .flat_map(|list| &list.peers)
        .filter_map(|peer| Some((peer, peer.clock_ahead_ms?)))
        .collect();
    let median = median(reported.iter().map(|(_, ahead)| *ahead).collect());
    if is_wrong(median) {
        let whose = match reported.as_slice() {
            [(peer, _)] => format!("the clock of {}, the only peer", peer.host),
            all => format!("the clocks of its {} peers (their median)", all.len()),
        };
        // The peers are ahead by as much as this host is behind.
        return finding(
            median,
            format!("the clock of this host is {} {whose}", apart(median.saturating_neg())),
        );
    }
    let wrong: Vec<&(&Peer, i64)> = reported.iter().filter(|(_, ahead)| is_wrong(*ahead)).collect();
    if let Some(worst) = wrong.iter().map(|(_, ahead)| *ahead).max_by_key(|ahead| ahead.unsigned_abs()) {
        let hosts = wrong.iter().take(NAMED);
        let hosts: Vec<String> = hosts
            .map(|(peer, ahead)| format!("the clock of {} is {} this host's", peer.host, apart(*ahead)))
            .collect();
        let clocks = count(wrong.len(), "clock differs", "clocks differ");
        return finding(worst, format!("{clocks} from those of other hosts: {}", listed(&hosts)));
    }
    let ahead = |started: Timestamp| started.as_millisecond().saturating_sub(now.as_millisecond());
    let worst = members.nodes.iter().map(|node| (ahead(node.started_at), node)).max_by_key(|(by, _)| *by);
    match worst {
        Some((by, node)) if by > 0 && is_wrong(by) => {
            finding(by, format!("the clock of {} was at least {} this host's", node.host, apart(by)))
        }
        _ if reported.is_empty() => Finding::pass(CHECK, "not compared: there are no peers"),
        _ => {
            let peers = count(reported.len(), "peer", "peers");
            Finding::pass(CHECK, format!("within {} s of the clocks of {peers}", ALLOWED.as_secs()))
        }
    }
}

/// The median; with an even number, the middle value that is nearer to this host's clock.
fn median(mut ahead: Vec<i64>) -> i64 {
    ahead.sort_unstable();
    let half = ahead.len() / 2;
    let upper = ahead.get(half).copied().unwrap_or(0);
    let lower = if ahead.len().is_multiple_of(2) { half.checked_sub(1) } else { None };
    let lower = lower.and_then(|place| ahead.get(place)).copied().unwrap_or(upper);
    if lower.unsigned_abs() < upper.unsigned_abs() { lower } else { upper }
}

fn is_wrong(ahead_ms: i64) -> bool {
    Duration::from_millis(ahead_ms.unsigned_abs()) > ALLOWED
}

/// "10m ahead of" or "10m behind".
fn apart(ahead_ms: i64) -> String {
    let relation = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{} {relation}", span(ahead_ms.unsigned_abs().saturating_add(500) / 1_000))
}

/// The finding for a clock that differs; a failure if hosts would reject new certificates.
fn finding(ahead_ms: i64, what: String) -> Finding {
    if u128::from(ahead_ms.unsigned_abs()) < CLOCKS_APART.as_millis() {
        return Finding::warn(CHECK, what, REMEDY);
    }
    Finding::fail(CHECK, what, format!("{REMEDY}; hosts whose clock is behind reject new certificates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_prefers_the_nearer_of_two_middle_values() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![-7]), -7);
        assert_eq!(median(vec![600, 0]), 0);
        assert_eq!(median(vec![-600, 0]), 0);
        assert_eq!(median(vec![600, 601]), 600);
        assert_eq!(median(vec![0, 900, 1]), 1);
        assert_eq!(median(vec![i64::MIN, i64::MAX, 5]), 5);
    }
}
