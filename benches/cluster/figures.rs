//! Figures of one side at one size.

use pmd_bench::stats::Latencies;

/// The costs of an idle cluster, per process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Percent of a core, on average.
    pub(crate) cpu: f64,
    /// Bytes sent per second, on average and at most.
    pub(crate) sent: [f64; 2],
    /// Packets sent per second, on average.
    pub(crate) packets: f64,
    /// Resident memory in megabytes, on average and at most.
    pub(crate) resident: [f64; 2],
    /// Memory in megabytes, on average, where shared pages count proportionally.
    pub(crate) proportional: f64,
}

impl Default for Idle {
    fn default() -> Idle {
        const NONE: f64 = f64::NAN;
        Idle { cpu: NONE, sent: [NONE; 2], packets: NONE, resident: [NONE; 2], proportional: NONE }
    }
}

/// All figures of one side at one size; those that were not measured are empty, or not a number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// From the first join request until all see all.
    pub(crate) join: Latencies,
    /// From a change until one other member reports it.
    pub(crate) change_one: Latencies,
    /// From a change until all other members have reported it.
    pub(crate) change_all: Latencies,
    /// CPU time of all processes together for one change.
    pub(crate) change_cpu: Latencies,
    /// From SIGKILL until all other members know.
    pub(crate) kill: Latencies,
    /// From an unplugged cable until all other members know.
    pub(crate) cable: Latencies,
    /// From the end of a partition until all see all.
    pub(crate) heal_members: Latencies,
    /// From the end of a partition until all fingerprints are equal.
    pub(crate) heal_prints: Latencies,
    pub(crate) idle: Idle,
    /// What failed.
    pub(crate) failures: Vec<String>,
}
