//! Tunnel benchmark: Erlang distribution unencrypted, through pmd, through pmd and a relay, and over Erlang's own TLS.
//!
//!     cargo bench --bench tunnel                # about two minutes
//!     cargo bench --bench tunnel -- --quick     # smoke test, several seconds
//!     cargo bench --bench tunnel -- --check     # exits with 1 if a bar is missed
//!
//! Method: every side is a pair of `erl` nodes on two hosts (namespaces on one bridge) with pmd as their port mapper.
//! All pairs run at the same time and are measured in turn, in several rounds; figures are medians over the rounds.
//! Throughput is measured by the receiver, from the first message to the last; the flow control of Erlang distribution
//! limits the sender as in production. CPU is the user and system time of both nodes and of the daemons on their hosts.
//!
//! Before that, nodes connect to one on the other host and disconnect again, in turn by the epmd module, by the host's alias
//! and without pmd. The figure is the median of the times until they are connected.
//!
//! Floors, from the bottom up: figures, node, options · hosts, report · connects · measure.

#![forbid(unsafe_code)]

mod connects;
mod figures;
mod hosts;
mod measure;
mod node;
mod options;
mod report;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    options.run.run("tunnel", || run(&options))
}

fn run(options: &Options) -> Result<bool> {
    let plan = options.resolve()?;
    let report = report::begin(&options.run, &plan)?;
    let (figures, connects) = measure::measure(&plan)?;
    report::print(report, &figures, &connects)
}
