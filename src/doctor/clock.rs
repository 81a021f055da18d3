//! This host's clock, held against those of its peers; and against when members were started, by their own clocks.
//!
//! Peers tell what their clocks say when a link begins. Of two clocks that differ nobody knows which is right, so the
//! middle one of the peers' counts: if this host's is far from it, it is this host's that is wrong. Members without a
//! link show themselves in having been started in the future.

use std::time::Duration;

use jiff::Timestamp;

use super::Finding;

use crate::auth::authority::CLOCKS_APART;
use crate::base::text::{count, listed, span};
use crate::control::api::{NodeList, Peer, PeerList};

const CHECK: &str = "clock";
const REMEDY: &str = "set the clock by NTP: timedatectl set-ntp true";
/// Below that nothing breaks, and logs still compare.
const ALLOWED: Duration = Duration::from_secs(5);
/// Hosts that are named.
const NAMED: usize = 5;

pub(super) fn judge(now: Timestamp, members: Option<&NodeList>, peers: Option<&PeerList>) -> Finding {
    let Some(members) = members else { return Finding::unasked(CHECK) };
    let told: Vec<(&Peer, i64)> = peers
        .into_iter()
        .flat_map(|list| &list.peers)
        .filter_map(|peer| Some((peer, peer.clock_ahead_ms?)))
        .collect();
    let middle = middle(told.iter().map(|(_, ahead)| *ahead).collect());
    if is_wrong(middle) {
        let whose = match told.as_slice() {
            [(peer, _)] => format!("that of {}, the only peer", peer.host),
            all => format!("those of its {} peers (the middle one counts)", all.len()),
        };
        // They are ahead by what this host is behind.
        return weigh(
            middle,
            format!("the clock of this host is {} {whose}", apart(middle.saturating_neg())),
        );
    }
    let wrong: Vec<&(&Peer, i64)> = told.iter().filter(|(_, ahead)| is_wrong(*ahead)).collect();
    if let Some(worst) = wrong.iter().map(|(_, ahead)| *ahead).max_by_key(|ahead| ahead.unsigned_abs()) {
        let hosts = wrong.iter().take(NAMED);
        let hosts: Vec<String> = hosts
            .map(|(peer, ahead)| format!("that of {} is {} this one", peer.host, apart(*ahead)))
            .collect();
        let clocks = count(wrong.len(), "clock differs", "clocks differ");
        return weigh(worst, format!("{clocks} from those of the other hosts: {}", listed(&hosts)));
    }
    let ahead = |started: Timestamp| started.as_millisecond().saturating_sub(now.as_millisecond());
    let worst = members.nodes.iter().map(|node| (ahead(node.started_at), node)).max_by_key(|(by, _)| *by);
    match worst {
        Some((by, node)) if by > 0 && is_wrong(by) => {
            weigh(by, format!("the clock of {} was at least {} this one", node.host, apart(by)))
        }
        _ if told.is_empty() => {
            Finding::pass(CHECK, "there is no peer whose clock it could be compared with")
        }
        _ => {
            let peers = count(told.len(), "peer", "peers");
            Finding::pass(CHECK, format!("within {} s of that of {peers}", ALLOWED.as_secs()))
        }
    }
}

/// The middle one; of two, the one that is nearer to this host's clock, which counts as well.
fn middle(mut ahead: Vec<i64>) -> i64 {
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
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{} {way}", span(ahead_ms.unsigned_abs().saturating_add(500) / 1_000))
}

/// Certificates stop being valid for hosts whose clocks are too far apart.
fn weigh(ahead_ms: i64, what: String) -> Finding {
    if u128::from(ahead_ms.unsigned_abs()) < CLOCKS_APART.as_millis() {
        return Finding::warn(CHECK, what, REMEDY);
    }
    Finding::fail(CHECK, what, format!("{REMEDY}; new certificates are not valid yet where it is behind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_clock_counts_and_this_one_in_doubt() {
        assert_eq!(middle(vec![]), 0);
        assert_eq!(middle(vec![-7]), -7);
        assert_eq!(middle(vec![600, 0]), 0);
        assert_eq!(middle(vec![-600, 0]), 0);
        assert_eq!(middle(vec![600, 601]), 600);
        assert_eq!(middle(vec![0, 900, 1]), 1);
        assert_eq!(middle(vec![i64::MIN, i64::MAX, 5]), 5);
    }
}
