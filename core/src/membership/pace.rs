//! How often daemons may cause something: a limit for each of them.
//!
//! It is the generic cell rate algorithm (ITU-T I.371, annex A), a token bucket that needs one number for each daemon: when
//! its bucket is full again.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;

/// The number of daemons whose buckets are remembered. Beyond that, the one that is closest to full is forgotten.
const MAX_TRACKED: usize = 1_024;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often at once.
    pub burst: u64,
    /// One more in each period of this length, in milliseconds.
    pub every_ms: u64,
}

/// The same rate for each daemon.
#[derive(Clone, Debug)]
pub struct Paces {
    pace: Pace,
    full_at_ms: BTreeMap<NodeId, u64>,
}

impl Paces {
    /// Nobody has caused anything yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, full_at_ms: BTreeMap::new() }
    }

    /// Whether a daemon may cause it once more at this monotonic time.
    #[must_use]
    pub fn allow(&self, now_ms: u64, id: &NodeId) -> bool {
        let Pace { burst, every_ms } = self.pace;
        let full_at_ms = self.full_at_ms.get(id).copied().unwrap_or(now_ms).max(now_ms);
        full_at_ms - now_ms <= burst.saturating_sub(1).saturating_mul(every_ms)
    }

    /// Notes that a daemon has caused it.
    pub fn count(&mut self, now_ms: u64, id: NodeId) {
        let full_at_ms = self.full_at_ms.get(&id).copied().unwrap_or(now_ms).max(now_ms);
        self.full_at_ms.insert(id, full_at_ms.saturating_add(self.pace.every_ms));
        if self.full_at_ms.len() > MAX_TRACKED {
            self.full_at_ms.retain(|_, at_ms| *at_ms > now_ms);
        }
        if self.full_at_ms.len() > MAX_TRACKED
            && let Some((id, _)) = self.full_at_ms.iter().min_by_key(|(_, at_ms)| **at_ms)
        {
            let id = *id;
            self.full_at_ms.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    }

    /// How often it is allowed at this time.
    fn taken(paces: &mut Paces, now_ms: u64, by: u64) -> usize {
        let mut allowed = 0;
        while paces.allow(now_ms, &id(by)) {
            paces.count(now_ms, id(by));
            allowed += 1;
        }
        allowed
    }

    #[test]
    fn each_daemon_has_a_burst_and_then_a_rate() {
        let mut paces = Paces::new(Pace { burst: 3, every_ms: 100 });
        assert_eq!([1, 2].map(|by| taken(&mut paces, 1_000, by)), [3, 3]);
        assert_eq!([1_099, 1_100, 1_350].map(|now_ms| taken(&mut paces, now_ms, 1)), [0, 1, 2]);
        assert_eq!(taken(&mut paces, 1_000_000, 1), 3, "never more than the burst");
    }

    #[test]
    fn many_daemons_take_bounded_memory() {
        let mut paces = Paces::new(Pace { burst: 3, every_ms: 100 });
        taken(&mut paces, 0, 0);
        (1..100_000).for_each(|by| paces.count(0, id(by)));
        assert_eq!(paces.full_at_ms.len(), MAX_TRACKED);
        assert_eq!(taken(&mut paces, 0, 0), 0, "the one that has caused most is remembered");
    }
}
