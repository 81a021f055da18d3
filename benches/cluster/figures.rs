//! The figures of one side at one size.

use pmd_bench::stats::Latencies;

/// The costs of an idle cluster, per process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// CPU time in percent of a core, on average.
    pub(crate) cpu: f64,
    /// Bytes sent per second: the average and the maximum.
    pub(crate) sent: [f64; 2],
    /// Packets sent per second, on average.
    pub(crate) packets: f64,
    /// Resident memory in megabytes: the average and the maximum.
    pub(crate) resident: [f64; 2],
    /// Average memory in megabytes, with shared pages counted proportionally.
    pub(crate) proportional: f64,
}

impl Default for Idle {
    fn default() -> Idle {
        const NONE: f64 = f64::NAN;
        Idle { cpu: NONE, sent: [NONE; 2], packets: NONE, resident: [NONE; 2], proportional: NONE }
    }
}

/// All figures of one side at one size. Those that were not measured are empty or NaN.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// From the first join request until all members see each other.
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
    /// From the end of a partition until all members see each other.
    pub(crate) heal_members: Latencies,
    /// From the end of a partition until all fingerprints are equal.
    pub(crate) heal_prints: Latencies,
    pub(crate) idle: Idle,
    /// The failed measurements.
    pub(crate) failures: Vec<String>,
}
