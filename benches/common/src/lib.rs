//! Shared code of pmd's benchmarks.
//!
//! This is a crate rather than a module, because each benchmark uses a different part of it, and Cargo keeps it from
//! depending on any of them.
//!
//! Floors, from the bottom up: fleet, process, stats · daemon, options · report.

#[path = "../../../tests/harness/fleet/mod.rs"]
#[allow(
    clippy::expect_used,
    clippy::panic,
    reason = "shared with the tests, and panics if the setup is broken"
)]
pub mod fleet;

pub mod daemon;
pub mod options;
pub mod process;
pub mod report;
pub mod stats;
