//! What was asked for on the command line, and what it means.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::fleet::installed;

/// Compares tunnels with plain and with encrypted Erlang distribution.
#[derive(Debug, Parser)]
#[command(name = "tunnel")]
pub(crate) struct Options {
    /// A smoke run; its figures mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// End with status 1 if a bar is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// The pmd binary, if not the one Cargo built for this benchmark
    #[arg(long)]
    pmd: Option<PathBuf>,
    /// Cargo passes this to every benchmark target
    #[arg(long, hide = true)]
    bench: bool,
}

/// The settled plan of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) pmd: PathBuf,
    pub(crate) rounds: usize,
    /// How long messages are sent for, in milliseconds.
    pub(crate) send_ms: u64,
    /// Round trips in a row.
    pub(crate) trips: u64,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Plan> {
        for (tool, package) in [("erl", "erlang-base"), ("ip", "iproute2"), ("nft", "nftables")] {
            ensure!(installed(tool), "no {tool}: install it (Debian, Ubuntu: apt-get install {package})");
        }
        let pmd = self.pmd.clone().or_else(|| option_env!("CARGO_BIN_EXE_pmd").map(PathBuf::from));
        Ok(Plan {
            quick: self.quick,
            pmd: pmd.context("no pmd binary: run by `cargo bench`, or give --pmd PATH")?,
            rounds: if self.quick { 1 } else { 3 },
            send_ms: if self.quick { 500 } else { 4_000 },
            trips: if self.quick { 500 } else { 10_000 },
        })
    }
}
