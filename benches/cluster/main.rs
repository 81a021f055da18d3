//! Cluster benchmark: pmd and serf in turn, in one run, on identical hosts.
//!
//!     cargo bench --bench cluster                       # 3, 10, 30 and 100 hosts, about twenty minutes
//!     cargo bench --bench cluster -- --quick            # smoke test: pmd alone on 3 hosts, a few seconds
//!     cargo bench --bench cluster -- --sizes 10 --check # exits with 1 if a bar is missed
//!
//! Method: at each size, the sides run one after the other, with one network namespace and one process per host, all on
//! one bridge. The other side does not run at the same time, because a hundred idle processes use noticeable CPU on a
//! few cores. Only what a process needs to start is configured (a name, an address, a cluster secret).
//!
//! An event is timed when this program reads it from a connection that is already open: pmd's event stream, or serf's
//! RPC, where a user event announces a change and the agent's statistics (polled every 50 ms, because serf delays its
//! own membership events) give the number of members it sees. "On all members" means that the last one has reported it.
//!
//! Traffic is counted at the bridge, in whole Ethernet frames. CPU is the user and system time of the processes.
//!
//! Floors, from the bottom up: figures, observation, options · pmd, serf, report · cluster · idle · measure.

#![forbid(unsafe_code)]

mod cluster;
mod figures;
mod idle;
mod measure;
mod observation;
mod options;
mod pmd;
mod report;
mod serf;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::Options;
use crate::report::ClusterReport;

fn main() -> ExitCode {
    let options = Options::parse();
    options.run.run("cluster", || run(&options))
}

fn run(options: &Options) -> Result<bool> {
    let plan = options.resolve()?;
    let mut report = ClusterReport::begin(&options.run, &plan)?;
    for size in &plan.sizes {
        let figures = measure::size(&plan, *size)?;
        report.size(*size, &figures)?;
    }
    report.finish()
}
