//! Command line options and the resulting plan.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use pmd_bench::options::RunOptions;
use rustix::process::{Resource, getrlimit};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds per figure
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Milliseconds of load per server and round
    #[arg(long, value_name = "MS")]
    slice: Option<u64>,
    /// The stock epmd [default: the one of the installed Erlang]
    #[arg(long, value_name = "PATH")]
    epmd: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Lookups with few and many registered names on stock, pmd and null servers
    Lookups,
    /// Lookups on pmd from ten names to the largest registry
    Flat,
    /// Register, close, register again
    Churn,
    /// Time and memory of held registrations
    Held,
    /// NAMES with a full registry
    Names,
    /// Lookup latency with idle connections
    Idle,
    /// From process start to first answer
    Startup,
}

/// The parts to run, and for how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) run: RunOptions,
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: u16,
    pub(crate) slice: Duration,
    pub(crate) pmd: PathBuf,
    pub(crate) stock: PathBuf,
    /// Registrations in the largest registry: 19,000, or as many as the descriptor limit allows.
    pub(crate) largest: u32,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Plan> {
        let parts = if self.only.is_empty() { Part::value_variants().to_vec() } else { self.only.clone() };
        Ok(Plan {
            run: self.run.clone(),
            parts,
            rounds: self.rounds.unwrap_or(self.run.pick(1, 7)),
            slice: Duration::from_millis(self.slice.unwrap_or(self.run.pick(20, 200))),
            pmd: self.run.pmd(env!("CARGO_BIN_EXE_pmd"))?,
            stock: self.stock()?,
            largest: self.run.pick(500, largest_registry()),
        })
    }

    fn stock(&self) -> Result<PathBuf> {
        let found = match &self.epmd {
            Some(path) => Some(path.clone()),
            None => installed_epmds().into_iter().find(|path| is_stock(path)),
        };
        let path = found.context(
            "no stock epmd to compare with: install Erlang (Debian, Ubuntu: erlang-base; Alpine, Fedora: erlang), \
             or pass --epmd PATH",
        )?;
        fs::canonicalize(&path).with_context(|| format!("{}", path.display()))
    }
}

impl Plan {
    /// The description of the run in the report.
    pub(crate) fn facts(&self) -> Vec<String> {
        vec![
            format!("stock: {}", self.stock.display()),
            format!(
                "medians of {} rounds, {} ms per server and round, interleaved; \
                 ratios are medians of the rounds' ratios",
                self.rounds,
                self.slice.as_millis()
            ),
        ]
    }
}

/// Candidates from the directories of Linux distributions and from `PATH`. The versioned file in the Erlang tree comes
/// first, because the others may have been replaced by links to pmd.
fn installed_epmds() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in ["/usr/lib/erlang", "/usr/lib64/erlang", "/usr/local/lib/erlang"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("erts-") {
                found.push(entry.path().join("bin/epmd"));
            }
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    found.extend(env::split_paths(&path).map(|folder| folder.join("epmd")));
    found
}

/// Whether the path resolves to a file named epmd, not to pmd.
fn is_stock(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.file_name().is_some_and(|name| name == "epmd"))
}

/// Each registration takes one descriptor in the daemon and one in the process that holds it; a few hundred are left
/// for other purposes.
fn largest_registry() -> u32 {
    const WANTED: u32 = 19_000;
    const SPARE: u64 = 500;
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) => u32::try_from(limit.saturating_sub(SPARE)).map_or(WANTED, |room| room.min(WANTED)),
        None => WANTED,
    }
}
