//! Plans which paths to a host are tried, and in which order. A state machine whose caller passes the time.
//!
//! ```text
//!   direct   dial the host                                       immediately
//!   reverse  ask the host, over links, to dial back              if direct takes long
//!   relay    meet at a member that both can reach                if reverse takes long as well
//! ```
//!
//! The first path that succeeds is used. A path that failed recently is still tried, but the next one follows it
//! sooner. So the direct path is used again as soon as it works.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;

/// The delay before the next path is tried: longer than most handshakes.
pub const STEP_MS: u64 = 400;
/// The same for a question, which must be answered sooner than a handshake may take: all paths are tried at once, almost.
pub const QUESTION_STEP_MS: u64 = 50;
/// The delay after a path that failed recently: long enough for it to win on most networks if it works again.
pub const GRACE_MS: u64 = 50;
/// How long a failure is remembered.
pub const MEMORY_MS: u64 = 60_000;
/// Maximum number of remembered failures; far more than the hosts that one host connects to at a time.
const REMEMBERED: usize = 4_096;

/// A path to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The host is dialled.
    Direct,
    /// The host dials back.
    Reverse,
    /// The host is reached through a relay.
    Relay,
}

impl Path {
    /// The name in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Direct => "direct",
            Path::Reverse => "reverse",
            Path::Relay => "relay",
        }
    }
}

/// A member that relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hub {
    /// Its id.
    pub id: NodeId,
    /// The round-trip time to it, if known.
    pub rtt_us: Option<u32>,
}

/// The paths and relays that failed recently.
#[derive(Debug, Default)]
pub struct Paths {
    failed: BTreeMap<(NodeId, Path), u64>,
    hubs: BTreeMap<NodeId, u64>,
}

impl Paths {
    /// The paths to `target` in the order in which to try them, each with its delay in milliseconds: `step_ms` after a path
    /// that has not failed. `relays` says whether there are any relays.
    #[must_use]
    pub fn plan(&self, now_ms: u64, target: NodeId, relays: bool, step_ms: u64) -> Vec<(Path, u64)> {
        let paths = [Some(Path::Direct), Some(Path::Reverse), relays.then_some(Path::Relay)];
        let mut after_ms = 0;
        let mut plan = Vec::new();
        for path in paths.into_iter().flatten() {
            plan.push((path, after_ms));
            after_ms += if self.failed_recently(now_ms, target, path) { GRACE_MS } else { step_ms };
        }
        plan
    }

    /// The relays in the order in which to try them: by recent failures, then by round-trip time.
    #[must_use]
    pub fn order(&self, now_ms: u64, mut hubs: Vec<Hub>) -> Vec<Hub> {
        hubs.sort_by_key(|hub| {
            let failed =
                self.hubs.get(&hub.id).is_some_and(|failed_ms| now_ms.saturating_sub(*failed_ms) < MEMORY_MS);
            (failed, hub.rtt_us.unwrap_or(u32::MAX), hub.id)
        });
        hubs
    }

    /// Records whether a path to `target` worked.
    pub fn tried(&mut self, now_ms: u64, target: NodeId, path: Path, worked: bool) {
        if worked {
            self.failed.remove(&(target, path));
        } else {
            make_room(&mut self.failed);
            self.failed.insert((target, path), now_ms);
        }
    }

    /// Records whether a target could be reached through a relay.
    pub fn tried_hub(&mut self, now_ms: u64, hub: NodeId, worked: bool) {
        if worked {
            self.hubs.remove(&hub);
        } else {
            make_room(&mut self.hubs);
            self.hubs.insert(hub, now_ms);
        }
    }

    fn failed_recently(&self, now_ms: u64, target: NodeId, path: Path) -> bool {
        let failed = self.failed.get(&(target, path));
        failed.is_some_and(|failed_ms| now_ms.saturating_sub(*failed_ms) < MEMORY_MS)
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
    fn a_failed_path_delays_the_next_one_less_until_the_failure_is_forgotten() {
        let mut paths = Paths::default();
        let (direct, reverse, relay) = (Path::Direct, Path::Reverse, Path::Relay);
        assert_eq!(paths.plan(0, TARGET, false, STEP_MS), [(direct, 0), (reverse, STEP_MS)]);
        assert_eq!(
            paths.plan(0, TARGET, true, STEP_MS),
            [(direct, 0), (reverse, STEP_MS), (relay, 2 * STEP_MS)]
        );
        paths.tried(0, TARGET, direct, false);
        paths.tried(0, TARGET, reverse, false);
        assert_eq!(
            paths.plan(1, TARGET, true, STEP_MS),
            [(direct, 0), (reverse, GRACE_MS), (relay, 2 * GRACE_MS)]
        );
        assert_eq!(paths.plan(MEMORY_MS, TARGET, true, STEP_MS).last(), Some(&(relay, 2 * STEP_MS)));
        paths.tried(2, TARGET, direct, true);
        assert_eq!(
            paths.plan(3, TARGET, true, STEP_MS),
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
        fn every_path_is_tried_once_and_direct_first(
            tries in prop::collection::vec((0..3_usize, any::<bool>(), 0..200_000_u64), 0..20),
            now in 0..300_000_u64,
        ) {
            let mut paths = Paths::default();
            for (path, worked, at) in tries {
                paths.tried(at, TARGET, [Path::Direct, Path::Reverse, Path::Relay][path], worked);
            }
            let plan = paths.plan(now, TARGET, true, STEP_MS);
            let planned: Vec<Path> = plan.iter().map(|(path, _)| *path).collect();
            prop_assert_eq!(planned, [Path::Direct, Path::Reverse, Path::Relay]);
            prop_assert_eq!(plan[0].1, 0);
            prop_assert!(plan.iter().all(|(_, after)| *after <= 2 * STEP_MS));
        }
    }

    #[test]
    fn a_question_tries_all_paths_before_it_is_given_up() {
        let plan = Paths::default().plan(0, NodeId::MIN, true, QUESTION_STEP_MS);
        assert_eq!(plan, [(Path::Direct, 0), (Path::Reverse, 50), (Path::Relay, 100)]);
    }
}
