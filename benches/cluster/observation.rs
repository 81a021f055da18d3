//! What the processes of a cluster report.

use std::time::Instant;

/// A report of one process, and when it was read.
#[derive(Debug)]
pub(crate) struct Observation {
    /// Index of the host that the process runs on.
    pub(crate) host: usize,
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// What a process reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// The number of members that it sees, including itself.
    Members(usize),
    /// The change of this name.
    Change(String),
}
