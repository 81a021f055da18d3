//! The common command line options and the exit status of all benchmarks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::fleet::installed;

/// The common options of all benchmarks.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Check in a few seconds that everything can be measured; the figures are not meaningful and not checked
    #[arg(long, conflicts_with = "check")]
    pub quick: bool,
    /// Exit with status 1 if a bar is missed
    #[arg(long)]
    pub check: bool,
    /// The pmd binary [default: the one Cargo built for this benchmark]
    #[arg(long, value_name = "PATH")]
    pmd: Option<PathBuf>,
    /// Measure even though this build is not optimised
    #[arg(long, hide = true)]
    unoptimised: bool,
    /// Cargo passes this to every benchmark target
    #[arg(long, hide = true)]
    bench: bool,
}

impl RunOptions {
    /// The pmd binary to measure. `built` is the one that Cargo built.
    pub fn pmd(&self, built: &str) -> Result<PathBuf> {
        let path = self.pmd.as_deref().unwrap_or(Path::new(built));
        path.canonicalize().with_context(|| format!("{}", path.display()))
    }

    /// Selects the value for a quick run or for a full run.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Runs the benchmark `name`. It fails if `measure` returns an error or false.
    pub fn run(&self, name: &str, measure: impl FnOnce() -> Result<bool>) -> ExitCode {
        if cfg!(debug_assertions) && !self.quick && !self.unoptimised {
            // `cargo test --all-targets` runs unoptimised benchmarks too; their figures would mislead.
            eprintln!(
                "{name}: nothing measured, because this build is not optimised; use `cargo bench --bench {name}`"
            );
            return ExitCode::SUCCESS;
        }
        exit_code(name, measure())
    }
}

/// The name of a value on the command line.
pub fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The exit status for the outcome of the benchmark `name`. Prints the error, if any.
pub fn exit_code(name: &str, outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Fails with a hint if a [fleet](crate::fleet) cannot be set up here, or if one of these other programs is missing.
pub fn require_fleet(programs: &[(&str, &str)]) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the hosts are network namespaces, which need root; run this as root"
    );
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("setpriv", "util-linux")].iter().chain(programs)
    {
        ensure!(installed(program), "{program} is not installed (Debian, Ubuntu: apt-get install {package})");
    }
    Ok(())
}
