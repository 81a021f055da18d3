//! Cluster benchmark: pmd and serf in turn, in one run, on equal hosts.
//!
//!     cargo bench --bench cluster                       # 3, 10, 30 and 100 hosts, some twenty minutes
//!     cargo bench --bench cluster -- --quick            # smoke run, a minute or so
//!     cargo bench --bench cluster -- --sizes 10 --check # status 1 if a bar is missed
//!
//! How it measures. The sides come one after the other, at each size: a network namespace and a process to a host, all on
//! one bridge, and nothing of the other side beside them, for a hundred processes that are idle are not nothing on a few
//! cores. Nothing is configured but what a process needs to start (a name, an address, a cookie).
//!
//! A moment is when this program reads of it, over connections that were open before: from pmd's event stream, and
//! from serf's RPC, where a user event tells of a change and the agent's statistics (asked every 50 ms; serf holds back
//! its own reports of members) tell how many members it sees. "On all" is when the last of them has told.
//!
//! Traffic is counted by the switch, whole Ethernet frames. CPU is user and system time of the processes.

#![forbid(unsafe_code)]

#[path = "../../tests/harness/fleet/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "shared with the tests, which use more of it, and stop where it is broken"
)]
mod fleet;
mod idle;
mod measure;
mod options;
mod pmd;
mod report;
mod serf;
mod figures;
mod cluster;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::Options;
use crate::report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    run(&options).unwrap_or_else(|error| {
        eprintln!("cluster: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !options.quick && !options.unoptimised {
        // `cargo test --all-targets` runs benchmark targets too, unoptimised: figures from that would mislead.
        eprintln!("cluster: not an optimised build, nothing measured; use `cargo bench --bench cluster`");
        return Ok(ExitCode::SUCCESS);
    }
    let plan = options.resolve()?;
    let mut report = Report::begin(&plan)?;
    for size in &plan.sizes {
        let figures = measure::size(&plan, *size)?;
        report.size(*size, &figures)?;
    }
    let met = report.finish()?;
    Ok(if met || !options.check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
