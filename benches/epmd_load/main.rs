//! Load benchmark: pmd, stock epmd and a null server side by side, in one run.
//!
//!     cargo bench --bench epmd_load                                  # everything, several minutes
//!     cargo bench --bench epmd_load -- --quick                       # smoke test, a few seconds
//!     cargo bench --bench epmd_load -- --only lookups,churn --check  # exits with 1 if a bar is missed
//!
//! Method: all servers of a comparison run at the same time, each on its own loopback port, and are loaded in turn in
//! short slices: stock, pmd, null, then again in a rotated order. Other activity on the machine therefore affects all
//! of them equally. The main figure is the CPU time of the server process, which is much less sensitive to other load
//! than wall time. A figure is the median over the rounds; a ratio is the median of the ratios within each round, so it
//! need not equal the quotient of the two printed medians.
//!
//! The kernel charges loopback work to the process that happens to run: the server's `send` delivers the segment into
//! the client's socket, and the client's `connect` does the server's half of the handshake. The null server, which only
//! accepts, receives, sends fixed bytes and closes, shows the size of this share.
//!
//! Floors, from the bottom up: options, wire · client, null · hold, server · rounds · registry · one module for each
//! part.

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
mod registry;
mod rounds;
mod server;
mod startup;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pmd_bench::options::exit_code;
use pmd_bench::report::Report;

use crate::options::{Options, Part};

/// Compares pmd with stock epmd and with a server that does nothing.
#[derive(Debug, Parser)]
#[command(name = "epmd_load", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    helper: Option<Helper>,
    #[command(flatten)]
    options: Options,
}

/// The benchmark runs itself with these subcommands for work that needs a separate process.
#[derive(Debug, Subcommand)]
enum Helper {
    #[command(hide = true)]
    Null(null::NullArgs),
    #[command(hide = true)]
    Hold(hold::HoldArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.helper {
        Some(Helper::Null(args)) => exit_code("epmd_load null", null::serve(&args).map(|()| true)),
        Some(Helper::Hold(args)) => exit_code("epmd_load hold", hold::run(&args).map(|()| true)),
        None => cli.options.run.run("epmd_load", || run(&cli.options)),
    }
}

fn run(options: &Options) -> Result<bool> {
    let plan = options.resolve()?;
    let mut report = Report::begin("pmd and stock epmd under load", &plan.run, &plan.pmd, &plan.facts())?;
    for part in &plan.parts {
        eprintln!("epmd_load: {part:?}");
        match part {
            Part::Lookups => lookups::by_registry_size(&plan, &mut report)?,
            Part::Flat => lookups::flatness(&plan, &mut report)?,
            Part::Churn => churn::run(&plan, &mut report)?,
            Part::Held => held::run(&plan, &mut report)?,
            Part::Names => names::run(&plan, &mut report)?,
            Part::Idle => idle::run(&plan, &mut report)?,
            Part::Startup => startup::run(&plan)?,
        }
    }
    report.finish()
}
