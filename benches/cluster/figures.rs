//! Figures of one side at one size.

use std::time::Duration;

/// Durations in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Millis(Vec<f64>);

impl Millis {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    /// Adds the longest of these: when the last one knew.
    pub(crate) fn extend_worst(&mut self, took: Vec<Duration>) {
        self.0.extend(took.into_iter().max().map(|took| took.as_secs_f64() * 1e3));
    }

    /// What `percent` of them stay within; not a number for none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // The nearest rank: of a hundred the 99th, and the largest of few.
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn worst(&self) -> f64 {
        self.percentile(100)
    }
}

/// What it costs to do nothing, per process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Percent of a core, on average.
    pub(crate) cpu: f64,
    /// Bytes sent per second, on average and at most.
    pub(crate) sent: [f64; 2],
    /// Packets sent per second, on average.
    pub(crate) packets: f64,
    /// Megabytes: resident, on average and at most, and the process's share of what is resident, on average.
    pub(crate) resident: [f64; 2],
    pub(crate) share: f64,
}

impl Idle {
    /// No figures.
    pub(crate) const NONE: Idle = Idle {
        cpu: f64::NAN,
        sent: [f64::NAN; 2],
        packets: f64::NAN,
        resident: [f64::NAN; 2],
        share: f64::NAN,
    };
}

/// All of one side at one size; what could not be had is empty.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// From the first request to join until all see all.
    pub(crate) join: Millis,
    /// From a change until one other member tells of it.
    pub(crate) change_one: Millis,
    /// From a change until all others have told of it.
    pub(crate) change_all: Millis,
    /// Time on a processor of all processes together, for one change.
    pub(crate) change_cpu: Millis,
    /// From SIGKILL until all others know.
    pub(crate) kill: Millis,
    /// From a pulled cable until all others know.
    pub(crate) cable: Millis,
    /// From the heal until all see all.
    pub(crate) heal_members: Millis,
    /// From the heal until all fingerprints are equal.
    pub(crate) heal_prints: Millis,
    pub(crate) idle: Idle,
}

impl Figures {
    pub(crate) fn none() -> Figures {
        Figures {
            join: Millis::default(),
            change_one: Millis::default(),
            change_all: Millis::default(),
            change_cpu: Millis::default(),
            kill: Millis::default(),
            cable: Millis::default(),
            heal_members: Millis::default(),
            heal_prints: Millis::default(),
            idle: Idle::NONE,
        }
    }
}
