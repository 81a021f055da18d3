//! The reports of the processes of a cluster.

use std::time::Instant;

/// A report of one process, and the time at which it was read.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The index of the host that the process runs on.
    pub(crate) host: usize,
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// The content of a report.
#[derive(Debug)]
pub(crate) enum Event {
    /// The number of members that it sees, including itself.
    Members(usize),
    /// The change with this name.
    Change(String),
}
