//! Arguments of commands for claims.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::common::HELP;
use crate::config::value::{parse_duration, positive_duration};

/// Options of `pmd claim`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct Claim {
    /// The name to claim
    #[arg(required = true)]
    pub name: Option<String>,
    /// Fail at once if somebody else holds it
    #[arg(long, conflicts_with = "wait")]
    pub r#try: bool,
    /// Wait at most this long for it [default: without end]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// How long the claim lasts when this host is cut off from the voters
    #[arg(long, value_name = "TIME", value_parser = positive_duration, default_value = "10s")]
    pub ttl: Duration,
    /// Run this command while the claim is held
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// The subcommand.
    #[command(subcommand)]
    pub action: Option<ClaimAction>,
}

/// Subcommands of `pmd claim`.
#[derive(Debug, Subcommand)]
pub enum ClaimAction {
    /// Exit 0 if a claim is held with this number, 7 if not
    #[command(help_template = HELP, before_help = "Examples:\n  pmd claim check leader 366148604821505")]
    Check {
        /// The name
        name: String,
        /// The number
        number: u64,
    },
}
