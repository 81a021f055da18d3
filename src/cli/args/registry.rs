//! Arguments of commands for names and services.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::common::Watch;
use crate::config::types::Port;
use crate::config::value::{parse_duration, positive_duration};
use crate::control::events::KINDS;
use crate::directory::events::EventKind;

/// Options of `pmd names`.
#[derive(Debug, Args)]
pub struct Names {
    /// The host to ask instead of the local daemon; with --cluster, the host whose nodes to list
    pub host: Option<String>,
    /// List the nodes of all hosts of the cluster
    #[arg(long)]
    pub cluster: bool,
    /// The `--watch` flag.
    #[command(flatten)]
    pub watch: Watch,
}

/// Options of `pmd lookup`.
#[derive(Debug, Args)]
pub struct Lookup {
    /// The name of a node or service, optionally with its host
    #[arg(value_name = "NAME[@HOST]")]
    pub name: String,
    /// Print all matches, not just the best one
    #[arg(short, long)]
    pub all: bool,
    /// Wait up to this long for it to be registered
    #[arg(long, short_alias = 'w', value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
}

/// Options of `pmd register`.
#[derive(Debug, Args)]
pub struct Register {
    /// The name of the service
    pub name: String,
    /// The TCP port it listens on
    #[arg(short = 'P', long, value_name = "PORT")]
    pub service_port: Port,
    /// Metadata of the service; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub meta: Vec<(String, String)>,
    /// Drop it unless it is registered again within this time
    #[arg(long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "command")]
    pub ttl: Option<Duration>,
    /// Run this command, and keep the service registered while it runs
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("metadata has the form KEY=VALUE".into()),
    }
}

/// Options of `pmd unregister`.
#[derive(Debug, Args)]
pub struct Named {
    /// The name of the service
    pub name: String,
}

/// Options of `pmd subscribe`.
#[derive(Debug, Args)]
pub struct Subscribe {
    /// Only events of this kind; may be repeated
    #[arg(short, long, value_name = "KIND", value_parser = PossibleValuesParser::new(KINDS.map(EventKind::as_str)), hide_possible_values = true)]
    pub kind: Vec<String>,
    /// Start after the event with this number; 0 for all events that the daemon still has [default: new events only]
    #[arg(short, long, value_name = "NUMBER")]
    pub since: Option<u64>,
}
