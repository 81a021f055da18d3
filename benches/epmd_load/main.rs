//! Load benchmark: pmd, stock epmd and a null server side by side, in one run.
//!
//!     cargo bench --bench epmd_load                                  # everything, some minutes
//!     cargo bench --bench epmd_load -- --quick                       # smoke run, some seconds
//!     cargo bench --bench epmd_load -- --only lookups,churn --check  # status 1 if a bar is missed
//!
//! How it measures. All servers of a comparison stand at the same time, each on a port of its own on
//! loopback, and are loaded one after the other in short slices: stock, pmd, null, then again, the
//! order rotating. Whatever else the machine does then hits all of them alike. The main figure is the
//! CPU time of the server process (nanoseconds from `/proc/PID/task/*/schedstat`), which other load
//! disturbs far less than wall time. A figure is the median over the rounds; a ratio is the median of
//! the ratios within each round, so it need not equal the quotient of the two printed medians.
//!
//! The kernel charges loopback work to whoever runs when it happens: the server's `send` delivers the
//! segment into the client's socket, the client's `connect` does the server's half of the handshake.
//! The null server shows how much of a figure is that: it does nothing but accept, receive, send fixed
//! bytes and close.

#![forbid(unsafe_code)]

mod churn;
mod client;
mod held;
mod hold;
mod idle;
mod lookups;
mod names;
mod null;
mod options;
mod proc;
mod report;
mod rounds;
mod server;
mod startup;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::{Cli, Helper, Options, Part};
use crate::report::Report;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.helper {
        Some(Helper::Null(null)) => null::serve(&null).map(|()| ExitCode::SUCCESS),
        Some(Helper::Hold(hold)) => hold::run(&hold).map(|()| ExitCode::SUCCESS),
        Some(Helper::Exec(exec)) => server::exec(&exec).map(|()| ExitCode::SUCCESS),
        None => run(&cli.options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("epmd_load: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !options.quick && !options.unoptimised {
        // `cargo test --all-targets` runs benchmark targets too, unoptimised: figures from that would mislead.
        eprintln!("epmd_load: not an optimised build, nothing measured; use `cargo bench --bench epmd_load`");
        return Ok(ExitCode::SUCCESS);
    }
    let bench = options.resolve()?;
    let mut report = Report::begin(&bench)?;
    for part in &bench.parts {
        eprintln!("epmd_load: {part:?}");
        match part {
            Part::Lookups => lookups::by_registry_size(&bench, &mut report)?,
            Part::Flat => lookups::flatness(&bench, &mut report)?,
            Part::Churn => churn::run(&bench, &mut report)?,
            Part::Held => held::run(&bench, &mut report)?,
            Part::Names => names::run(&bench, &mut report)?,
            Part::Idle => idle::run(&bench, &mut report)?,
            Part::Startup => startup::run(&bench, &mut report)?,
        }
    }
    let met = report.finish()?;
    Ok(if met || !options.check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
