//! Faults of the simulated network.

use std::collections::BTreeSet;

/// The current faults. Daemons are numbered in the order in which they were started.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The shortest and longest latency, in milliseconds.
    pub latency_ms: (u64, u64),
    /// The number of frames in 1,000 that need a retransmission.
    pub loss_permille: u32,
    /// Pairs of sender and receiver between which nothing is delivered.
    pub cut: BTreeSet<(usize, usize)>,
    /// Whether every handshake fails, as when all certificates have expired. Existing links are not affected.
    pub no_handshakes: bool,
    /// A daemon that reads at most one frame in this many milliseconds.
    pub slow_reader: Option<(usize, u64)>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency_ms: (1, 3),
            loss_permille: 0,
            cut: BTreeSet::new(),
            slow_reader: None,
            no_handshakes: false,
        }
    }
}

impl Faults {
    /// Cuts the daemons in `part` off from the others of `count`, in both directions.
    pub fn partition(&mut self, part: impl Fn(usize) -> bool, count: usize) {
        for one in (0..count).filter(|one| part(*one)) {
            for other in (0..count).filter(|other| !part(*other)) {
                self.cut.extend([(one, other), (other, one)]);
            }
        }
    }

    /// Heals all partitions.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Whether nothing is delivered from `from` to `to`.
    #[must_use]
    pub fn blocks(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }
}
