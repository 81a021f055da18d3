//! Command line options and the resulting plan.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use pmd_bench::options::{RunOptions, require_fleet};

/// Compares tunnels with plain and encrypted Erlang distribution.
#[derive(Debug, Parser)]
#[command(name = "tunnel")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// The measurements to run, and their durations.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pmd: PathBuf,
    pub(crate) rounds: usize,
    /// The duration for which messages are sent, in milliseconds.
    pub(crate) send_ms: u64,
    /// The number of consecutive round trips.
    pub(crate) trips: u64,
    /// The number of connections in each way.
    pub(crate) connects: usize,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Plan> {
        require_fleet(&[("erl", "erlang-base"), ("erlc", "erlang-base")])?;
        Ok(Plan {
            pmd: self.run.pmd(env!("CARGO_BIN_EXE_pmd"))?,
            rounds: self.run.pick(1, 3),
            send_ms: self.run.pick(20, 4_000),
            trips: self.run.pick(100, 10_000),
            connects: self.run.pick(20, 400),
        })
    }
}
