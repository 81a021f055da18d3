//! Which ways to a host are tried, in which order. A state machine: the time is handed in.
//!
//! ```text
//!   direct   it is dialled                                       at once
//!   reverse  it is asked, over links, to dial back               when direct takes long
//!   relay    a member that both can reach connects the two       when that takes long as well
//! ```
//!
//! The first that leads there is taken. A way that did not work lately is hardly waited for, but still tried, so that the
//! direct way is back as soon as it works.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;

/// How much later the next way is tried than the one before: longer than most handshakes.
pub const STEP_MS: u64 = 400;
/// The same behind a way that did not work lately: long enough for it to win on most networks if it works again.
pub const GRACE_MS: u64 = 50;
/// For how long a way that did not work is hardly waited for.
pub const MEMORY_MS: u64 = 60_000;
/// Hosts that are remembered; far more than one host has to do with at a time.
const REMEMBERED: usize = 4_096;

/// A way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// It is dialled.
    Direct,
    /// It dials back.
    Reverse,
    /// Through relays.
    Relay,
}

impl Way {
    /// The name it has on the wire and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Reverse => "reverse",
            Way::Relay => "relay",
        }
    }
}

/// A member that relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hub {
    /// Who.
    pub id: NodeId,
    /// How far it is, where that is known.
    pub rtt_us: Option<u32>,
}

/// Which ways did not work lately.
#[derive(Debug, Default)]
pub struct Paths {
    failed: BTreeMap<(NodeId, Way), u64>,
    hubs: BTreeMap<NodeId, u64>,
}

impl Paths {
    /// The ways to `target` that are tried, and how many milliseconds after the beginning each; without relays there is
    /// none through them.
    #[must_use]
    pub fn plan(&self, now_ms: u64, target: NodeId, relays: bool) -> Vec<(Way, u64)> {
        let ways = [Some(Way::Direct), Some(Way::Reverse), relays.then_some(Way::Relay)];
        let mut after_ms = 0;
        let mut plan = Vec::new();
        for way in ways.into_iter().flatten() {
            plan.push((way, after_ms));
            after_ms += if self.is_bad(now_ms, target, way) { GRACE_MS } else { STEP_MS };
        }
        plan
    }

    /// Relays in the order in which they are tried: those that have not failed lately first, and of them the nearest.
    #[must_use]
    pub fn order(&self, now_ms: u64, mut hubs: Vec<Hub>) -> Vec<Hub> {
        hubs.sort_by_key(|hub| {
            let failed =
                self.hubs.get(&hub.id).is_some_and(|failed_ms| now_ms.saturating_sub(*failed_ms) < MEMORY_MS);
            (failed, hub.rtt_us.unwrap_or(u32::MAX), hub.id)
        });
        hubs
    }

    /// A way did not lead to `target`, or it did.
    pub fn tried(&mut self, now_ms: u64, target: NodeId, way: Way, worked: bool) {
        if worked {
            self.failed.remove(&(target, way));
        } else {
            make_room(&mut self.failed);
            self.failed.insert((target, way), now_ms);
        }
    }

    /// A relay could not be reached, or did not reach somebody; or it did.
    pub fn tried_hub(&mut self, now_ms: u64, hub: NodeId, worked: bool) {
        if worked {
            self.hubs.remove(&hub);
        } else {
            make_room(&mut self.hubs);
            self.hubs.insert(hub, now_ms);
        }
    }

    fn is_bad(&self, now_ms: u64, target: NodeId, way: Way) -> bool {
        self.failed.get(&(target, way)).is_some_and(|failed_ms| now_ms.saturating_sub(*failed_ms) < MEMORY_MS)
    }
}

fn make_room<K: Ord + Copy>(all: &mut BTreeMap<K, u64>) {
    if all.len() >= REMEMBERED
        && let Some(oldest) = all.iter().min_by_key(|(_, failed_ms)| **failed_ms).map(|(key, _)| *key)
    {
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: NodeId = NodeId::new([7; 32]);

    #[test]
    fn a_way_that_failed_is_hardly_waited_for_until_it_is_forgotten() {
        let mut paths = Paths::default();
        let (direct, reverse, relay) = (Way::Direct, Way::Reverse, Way::Relay);
        assert_eq!(paths.plan(0, TARGET, false), [(direct, 0), (reverse, STEP_MS)]);
        assert_eq!(paths.plan(0, TARGET, true), [(direct, 0), (reverse, STEP_MS), (relay, 2 * STEP_MS)]);
        paths.tried(0, TARGET, direct, false);
        paths.tried(0, TARGET, reverse, false);
        assert_eq!(paths.plan(1, TARGET, true), [(direct, 0), (reverse, GRACE_MS), (relay, 2 * GRACE_MS)]);
        assert_eq!(paths.plan(MEMORY_MS, TARGET, true).last(), Some(&(relay, 2 * STEP_MS)));
        paths.tried(2, TARGET, direct, true);
        assert_eq!(
            paths.plan(3, TARGET, true),
            [(direct, 0), (reverse, STEP_MS), (relay, STEP_MS + GRACE_MS)]
        );
    }

    #[test]
    fn the_nearest_relay_that_works_comes_first() {
        let hub = |byte: u8, rtt_us| Hub { id: NodeId::new([byte; 32]), rtt_us };
        let (near, far, unknown) = (hub(3, Some(100)), hub(2, Some(900)), hub(1, None));
        let mut paths = Paths::default();
        assert_eq!(paths.order(0, vec![unknown, far, near]), [near, far, unknown]);
        paths.tried_hub(0, near.id, false);
        assert_eq!(paths.order(1, vec![unknown, far, near]), [far, unknown, near]);
        assert_eq!(paths.order(MEMORY_MS, vec![unknown, far, near]), [near, far, unknown]);
    }

    proptest! {
        #[test]
        fn every_way_is_tried_once_and_direct_at_once(
            tries in prop::collection::vec((0..3_usize, any::<bool>(), 0..200_000_u64), 0..20),
            now in 0..300_000_u64,
        ) {
            let mut paths = Paths::default();
            for (way, worked, at) in tries {
                paths.tried(at, TARGET, [Way::Direct, Way::Reverse, Way::Relay][way], worked);
            }
            let plan = paths.plan(now, TARGET, true);
            let ways: Vec<Way> = plan.iter().map(|(way, _)| *way).collect();
            prop_assert_eq!(ways, [Way::Direct, Way::Reverse, Way::Relay]);
            prop_assert_eq!(plan[0].1, 0);
            prop_assert!(plan.iter().all(|(_, after)| *after <= 2 * STEP_MS));
        }
    }
}
