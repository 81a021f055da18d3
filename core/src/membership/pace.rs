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

/// What has been used of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// When all of it is there again, in monotonic milliseconds.
    full_at_ms: u64,
}

impl Allowance {
    /// How many may follow at once.
    #[must_use]
    pub fn left(&self, now_ms: u64, pace: Pace) -> u64 {
        let spent = self.full_at_ms.saturating_sub(now_ms).div_ceil(pace.every_ms.max(1));
        pace.burst.saturating_sub(spent)
    }

    /// Uses some of it.
    pub fn take(&mut self, now_ms: u64, pace: Pace, count: u64) {
        let spent_ms = count.saturating_mul(pace.every_ms.max(1));
        self.full_at_ms = self.full_at_ms.max(now_ms).saturating_add(spent_ms);
    }

    /// Whether nothing of it is used.
    #[must_use]
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.full_at_ms <= now_ms
    }
}

/// The same rate for each daemon.
#[derive(Clone, Debug)]
pub struct Paces {
    pace: Pace,
    used: BTreeMap<NodeId, Allowance>,
}

impl Paces {
    /// Nobody has caused anything yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, used: BTreeMap::new() }
    }

    /// Whether a daemon may cause it once more at this monotonic time.
    #[must_use]
    pub fn allow(&self, now_ms: u64, id: &NodeId) -> bool {
        self.used.get(id).copied().unwrap_or_default().left(now_ms, self.pace) > 0
    }

    /// Notes that a daemon has caused it.
    pub fn count(&mut self, now_ms: u64, id: NodeId) {
        self.used.entry(id).or_default().take(now_ms, self.pace, 1);
        if self.used.len() > MAX_TRACKED {
            self.used.retain(|_, used| !used.is_full(now_ms));
        }
        if self.used.len() > MAX_TRACKED
            && let Some((id, _)) = self.used.iter().min_by_key(|(_, used)| used.full_at_ms)
        {
            let id = *id;
            self.used.remove(&id);
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
        assert_eq!(paces.used.len(), MAX_TRACKED);
        assert_eq!(taken(&mut paces, 0, 0), 0, "the one that has caused most is remembered");
    }
}
