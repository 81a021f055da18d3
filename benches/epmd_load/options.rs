//! What was asked for on the command line, and what it means.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, getrlimit};

use crate::hold::HoldArgs;
use crate::null::NullArgs;
use crate::server::ExecArgs;

/// Compares pmd with stock epmd and with a server that does nothing.
#[derive(Debug, Parser)]
#[command(name = "epmd_load")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) helper: Option<Helper>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// The benchmark starts itself under these names for work that must be in a process of its own.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
pub(crate) enum Helper {
    Null(NullArgs),
    Hold(HoldArgs),
    Exec(ExecArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// A smoke run of some seconds; its figures mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// End with status 1 if a bar is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Rounds per figure
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds one server is loaded for in one round
    #[arg(long)]
    slice: Option<u64>,
    /// The pmd binary, if not the one Cargo built for this benchmark
    #[arg(long)]
    pmd: Option<PathBuf>,
    /// The stock epmd, if not the one of the installed Erlang
    #[arg(long)]
    epmd: Option<PathBuf>,
    /// Measure although this build is not optimised
    #[arg(long, hide = true)]
    pub(crate) unoptimised: bool,
    /// Cargo passes this to every benchmark target
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Null servers; look-ups with few and many registered names on stock, pmd and null
    Lookups,
    /// Look-ups on pmd from ten names to the largest registry
    Flat,
    /// Register, close, register again
    Churn,
    /// Time and memory of standing registrations
    Held,
    /// NAMES with a full registry
    Names,
    /// Look-up latency beside idle connections
    Idle,
    /// From process start to first answer
    Startup,
}

/// The settled plan of a run.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    pub(crate) quick: bool,
    pub(crate) pmd: PathBuf,
    pub(crate) stock: PathBuf,
    /// Registrations in the largest registry: 19,000, or what the descriptor limit leaves.
    pub(crate) largest: u32,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Bench> {
        let (rounds, slice) = if self.quick { (1, 20) } else { (7, 200) };
        let parts = if self.only.is_empty() { Part::value_variants().to_vec() } else { self.only.clone() };
        let rounds = self.rounds.unwrap_or(rounds);
        if rounds == 0 {
            bail!("--rounds must be at least 1");
        }
        Ok(Bench {
            parts,
            rounds,
            slice: Duration::from_millis(self.slice.unwrap_or(slice)),
            quick: self.quick,
            pmd: self.pmd()?,
            stock: self.stock()?,
            largest: largest_registry(),
        })
    }

    fn pmd(&self) -> Result<PathBuf> {
        let path = self.pmd.clone().or_else(|| option_env!("CARGO_BIN_EXE_pmd").map(PathBuf::from));
        let path = path.context("no pmd binary: run by `cargo bench`, or give --pmd PATH")?;
        fs::canonicalize(&path).with_context(|| format!("{}", path.display()))
    }

    fn stock(&self) -> Result<PathBuf> {
        let found = match &self.epmd {
            Some(path) => Some(path.clone()),
            None => installed_epmds().into_iter().find(|path| is_stock(path)),
        };
        let path = found.context(
            "no stock epmd to compare with: install Erlang (Debian, Ubuntu: erlang-base; Alpine, Fedora: erlang), \
             or give --epmd PATH",
        )?;
        fs::canonicalize(&path).with_context(|| format!("{}", path.display()))
    }
}

/// Where distributions and `PATH` have an epmd, the versioned file of the Erlang tree first: the others may have been
/// pointed at pmd.
fn installed_epmds() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in ["/usr/lib/erlang", "/usr/lib64/erlang", "/usr/local/lib/erlang"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("erts-") {
                found.push(entry.path().join("bin/epmd"));
            }
        }
    }
    found
        .extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join("epmd")));
    found
}

/// Whether the path leads to a file that is itself called epmd (a link to pmd is not the peer).
fn is_stock(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.file_name().is_some_and(|name| name == "epmd"))
}

/// Each registration costs the daemon and the process that holds it one descriptor; a few hundred stay for the rest.
fn largest_registry() -> u32 {
    const WANTED: u32 = 19_000;
    const SPARE: u64 = 500;
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) => u32::try_from(limit.saturating_sub(SPARE)).map_or(WANTED, |room| room.min(WANTED)),
        None => WANTED,
    }
}
