//! Tunnel benchmark: Erlang distribution in the clear, through pmd, through pmd and a relay, and over Erlang's own TLS.
//!
//!     cargo bench --bench tunnel                # some two minutes
//!     cargo bench --bench tunnel -- --quick     # smoke run
//!     cargo bench --bench tunnel -- --check     # status 1 if a bar is missed
//!
//! How it measures. Every side is a pair of `erl` nodes on two hosts of their own (namespaces on one bridge) with pmd as
//! port mapper. All stand at the same time and are measured in turn, in several rounds; figures are medians of rounds.
//! Throughput is what the receiver counts from the first message to the last; the sender is held back by the
//! distribution as in any system. CPU is user and system time of both nodes and of the daemons of their hosts.

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
mod node;
mod options;
mod report;
mod measure;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::Options;

fn main() -> ExitCode {
    run(&Options::parse()).unwrap_or_else(|error| {
        eprintln!("tunnel: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !options.quick {
        // `cargo test --all-targets` runs benchmark targets too, unoptimised: figures from that would mislead.
        eprintln!("tunnel: not an optimised build, nothing measured; use `cargo bench --bench tunnel`");
        return Ok(ExitCode::SUCCESS);
    }
    let plan = options.resolve()?;
    let figures = measure::measure(&plan)?;
    let met = report::print(&plan, &figures)?;
    Ok(if met || !options.check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
