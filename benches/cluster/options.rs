//! What was asked for on the command line, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::fleet::installed;

/// Compares pmd with serf on clusters of several sizes.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
pub(crate) struct Options {
    /// Numbers of hosts
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Run only these parts; joining is always one
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// A smoke run; its figures mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// End with status 1 if a bar is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Measure one side alone
    #[arg(long, value_enum)]
    side: Option<Side>,
    /// Seconds that each side is idle for
    #[arg(long)]
    idle: Option<u64>,
    /// The pmd binary, if not the one Cargo built for this benchmark
    #[arg(long)]
    pmd: Option<PathBuf>,
    /// Measure although this build is not optimised
    #[arg(long, hide = true)]
    pub(crate) unoptimised: bool,
    /// Cargo passes this to every benchmark target
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// How long a change takes to all members
    Changes,
    /// What it costs when nothing happens
    Idle,
    /// How long it takes until all know of a killed process
    Kills,
    /// How long it takes until all know of a vanished host
    Cables,
    /// How long it takes until all is as it was after a third was cut off
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Pmd,
    Serf,
}

/// The settled plan of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sizes: Vec<usize>,
    pub(crate) parts: Vec<Part>,
    pub(crate) quick: bool,
    pub(crate) side: Option<Side>,
    pub(crate) pmd: PathBuf,
    /// How often everybody joins.
    pub(crate) joins: usize,
    /// Changes on pmd and on serf, which takes longer for each.
    pub(crate) changes: [usize; 2],
    /// How long it is left alone before it counts as idle, and how long it is then looked at.
    pub(crate) settle: Duration,
    pub(crate) idle: Duration,
    pub(crate) kills: usize,
    pub(crate) cables: usize,
    pub(crate) split: Duration,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Plan> {
        let pmd = self.pmd.clone().or_else(|| option_env!("CARGO_BIN_EXE_pmd").map(PathBuf::from));
        ensure!(
            installed("serf") || self.side == Some(Side::Pmd),
            "no serf to compare with: install it (Debian, Ubuntu: apt-get install serf), or give --side pmd"
        );
        for tool in ["ip", "nft", "setpriv"] {
            ensure!(installed(tool), "no {tool}: install iproute2, nftables and util-linux");
        }
        let sizes = match (self.sizes.is_empty(), self.quick) {
            (false, _) => self.sizes.clone(),
            (true, true) => vec![3, 10],
            (true, false) => vec![3, 10, 30, 100],
        };
        ensure!(sizes.iter().all(|size| (3..=250).contains(size)), "a size is from 3 to 250");
        let parts = if self.only.is_empty() { Part::value_variants().to_vec() } else { self.only.clone() };
        let pick = |quick: usize, full: usize| if self.quick { quick } else { full };
        let idle = self.idle.unwrap_or(if self.quick { 5 } else { 60 });
        Ok(Plan {
            sizes,
            parts,
            quick: self.quick,
            side: self.side,
            pmd: pmd.context("no pmd binary: run by `cargo bench`, or give --pmd PATH")?,
            joins: pick(1, 3),
            changes: [pick(10, 200), pick(3, 20)],
            settle: Duration::from_secs(if self.quick { 0 } else { 60 }),
            idle: Duration::from_secs(idle),
            kills: pick(1, 5),
            cables: pick(1, 3),
            split: Duration::from_secs(if self.quick { 5 } else { 30 }),
        })
    }
}
