//! Load benchmark: pmd, stock epmd and a null server side by side, in one run.
//!
//!     cargo bench --bench epmd_load                                  # everything, several minutes
//!     cargo bench --bench epmd_load -- --quick                       # smoke test, a few seconds
//!     cargo bench --bench epmd_load -- --only lookups,churn --check  # exits with 1 if a bar is missed
//!
//! How it measures. All servers of a comparison run at the same time, each on its own loopback port, and take turns
//! under load in short slices: stock, pmd, null, then again in a rotated order. Whatever else the machine does therefore
//! affects all of them alike. The main figure is the CPU time of the server process, which other load disturbs far less
//! than wall time. A figure is the median over the rounds; a ratio is the median of the ratios within each round, so it
//! need not equal the quotient of the two printed medians.
//!
//! The kernel charges loopback work to whichever process runs when it happens: the server's `send` delivers the segment
//! into the client's socket, the client's `connect` does the server's half of the handshake. The null server, which only
//! accepts, receives, sends fixed bytes and closes, shows how much of a figure that is.
//!
//! Floors, from the ground: options, wire · client, null · hold, server · rounds · registry · one module for each part.

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

/// The benchmark runs itself under these names for work that needs a process of its own.
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
