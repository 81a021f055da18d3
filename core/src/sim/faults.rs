//! What is wrong with the simulated network at the moment.

use std::collections::BTreeSet;

/// Faults. Daemons are numbered in the order of their start.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Shortest and longest time that bytes take, in milliseconds.
    pub latency_ms: (u64, u64),
    /// How many of 1,000 frames need a retransmission.
    pub loss_permille: u32,
    /// From whom to whom nothing arrives.
    pub cut: BTreeSet<(usize, usize)>,
    /// Whether every handshake fails, as when all certificates have expired. Standing links do not notice.
    pub no_handshakes: bool,
    /// Who reads one frame in this many milliseconds, at most.
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
    /// Cuts the members of `part` off from all others of `count`, both ways.
    pub fn partition(&mut self, part: impl Fn(usize) -> bool, count: usize) {
        for one in (0..count).filter(|one| part(*one)) {
            for other in (0..count).filter(|other| !part(*other)) {
                self.cut.extend([(one, other), (other, one)]);
            }
        }
    }

    /// Everybody hears everybody again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Whether nothing gets from one to the other.
    #[must_use]
    pub fn blocks(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }
}
