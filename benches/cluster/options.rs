//! Command line options and the resulting plan.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use pmd_bench::fleet::installed;
use pmd_bench::options::{RunOptions, require_fleet};
use pmd_bench::report::version;

/// Compares pmd with serf on clusters of several sizes.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Numbers of hosts [default: 3,10,30,100; quick: 3]
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Run only these parts; joining is always measured [quick: changes,idle,kills]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure only these sides [default: pmd, and serf if it is installed; quick: pmd]
    #[arg(long, value_enum, value_delimiter = ',')]
    side: Vec<Side>,
    /// Seconds for which each side stays idle
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Time until all members know about a change
    Changes,
    /// Costs of an idle cluster
    Idle,
    /// Time until all members know about a killed process
    Kills,
    /// Time until all members know about a vanished host
    Cables,
    /// Recovery after a third of the hosts was disconnected
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Pmd,
    Serf,
}

/// The parts to run, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sizes: Vec<usize>,
    pub(crate) parts: Vec<Part>,
    pub(crate) sides: Vec<Side>,
    pub(crate) pmd: PathBuf,
    pub(crate) joins: usize,
    /// The number of changes on pmd, and on serf, which takes longer for each.
    pub(crate) changes: [usize; 2],
    /// The time without load before a cluster counts as idle, and the time for which it is then observed.
    pub(crate) settle: Duration,
    pub(crate) idle: Duration,
    pub(crate) kills: usize,
    pub(crate) cables: usize,
    pub(crate) split: Duration,
}

impl Options {
    pub(crate) fn resolve(&self) -> Result<Plan> {
        require_fleet(&[])?;
        let run = &self.run;
        let sizes =
            if self.sizes.is_empty() { run.pick(vec![3], vec![3, 10, 30, 100]) } else { self.sizes.clone() };
        ensure!(sizes.iter().all(|size| (3..=250).contains(size)), "sizes range from 3 to 250");
        let parts = if self.only.is_empty() {
            run.pick(&[Part::Changes, Part::Idle, Part::Kills][..], Part::value_variants()).to_vec()
        } else {
            self.only.clone()
        };
        Ok(Plan {
            sizes,
            parts,
            sides: self.sides()?,
            pmd: run.pmd(env!("CARGO_BIN_EXE_pmd"))?,
            joins: run.pick(1, 3),
            changes: [run.pick(10, 200), run.pick(3, 20)],
            settle: Duration::from_secs(run.pick(0, 60)),
            idle: Duration::from_secs(self.idle.unwrap_or(run.pick(1, 60))),
            kills: run.pick(1, 5),
            cables: run.pick(1, 3),
            split: Duration::from_secs(run.pick(5, 30)),
        })
    }

    fn sides(&self) -> Result<Vec<Side>> {
        let install = "serf is not installed (Debian, Ubuntu: apt-get install serf)";
        let has_serf = installed("serf");
        ensure!(has_serf || !self.side.contains(&Side::Serf), "{install}");
        if !self.side.is_empty() {
            return Ok(self.side.clone());
        }
        if self.run.quick {
            return Ok(vec![Side::Pmd]);
        }
        if !has_serf {
            eprintln!("cluster: {install}: measuring pmd alone");
            return Ok(vec![Side::Pmd]);
        }
        Ok(vec![Side::Pmd, Side::Serf])
    }
}

impl Plan {
    /// The description of the run in the report.
    pub(crate) fn facts(&self) -> Vec<String> {
        let serf = if self.sides.contains(&Side::Serf) {
            format!("{}, not encrypted, profile `lan`", version(Command::new("serf").arg("version")))
        } else if installed("serf") {
            "not measured".to_owned()
        } else {
            "not installed, not measured".to_owned()
        };
        vec![
            format!("serf: {serf}"),
            format!(
                "joins: {}, changes: {} and {}, kills: {}, cables: {}, idle for {} s after {} s, split for {} s",
                self.joins,
                self.changes[0],
                self.changes[1],
                self.kills,
                self.cables,
                self.idle.as_secs(),
                self.settle.as_secs(),
                self.split.as_secs()
            ),
        ]
    }
}
