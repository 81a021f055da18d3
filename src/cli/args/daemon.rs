//! Arguments of commands for the daemon itself: start, health, and switching between epmd and pmd.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::cluster::parse_peer;
use super::nodes::OwnCookie;
use crate::config::value::{parse_addresses, parse_duration, positive_duration};

/// Options of `pmd start`.
#[derive(Debug, Clone, Default, Args)]
pub struct Start {
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Address to listen on besides loopback; may be repeated [default: all addresses]
    #[arg(short, long, value_name = "ADDRESS", value_parser = parse_list)]
    pub bind: Vec<AddressList>,
    /// Allow epmd's -kill while nodes are registered, and its -stop
    #[arg(long)]
    pub relaxed_command_check: bool,
    /// How long a connection may take to complete its request [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub packet_timeout: Option<Duration>,
    /// Join the cluster of the daemon at this address; may be repeated
    #[arg(short, long, value_name = "ADDR", value_parser = parse_peer)]
    pub join: Vec<String>,
    /// How to find other daemons: broadcast, dns:NAME or exec:COMMAND; may be repeated
    #[arg(long, value_name = "SPEC", value_parser = NonEmptyStringValueParser::new())]
    pub discovery: Vec<String>,
    /// The name of the cluster; daemons of other clusters are rejected
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub cluster: Option<String>,
    /// Address to advertise to other daemons; may be repeated [default: the addresses of this host]
    #[arg(long, value_name = "ADDR", value_parser = parse_peer)]
    pub advertise: Vec<String>,
}

/// Options of `pmd demo`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Demo {
    /// Number of daemons: 1 to 20
    #[arg(default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub daemons: u8,
    /// Do not start Erlang nodes
    #[arg(long)]
    pub no_erlang: bool,
}

/// The addresses given with one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressList(pub Vec<IpAddr>);

fn parse_list(text: &str) -> Result<AddressList, String> {
    match parse_addresses(text)? {
        addresses if addresses.is_empty() => Err("an IP address is required".into()),
        addresses => Ok(AddressList(addresses)),
    }
}

impl Start {
    /// All addresses to listen on; none if the flag was not used.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        let all: Vec<IpAddr> = self.bind.iter().flat_map(|list| list.0.iter().copied()).collect();
        Some(all).filter(|all| !all.is_empty())
    }
}

/// Options of `pmd doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Also test each hop to this node
    #[arg(value_name = "NAME@HOST")]
    pub node: Option<String>,
    /// The Erlang cookie
    #[command(flatten)]
    pub cookie: OwnCookie,
}

/// Options of `pmd health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Also try a lookup, and check that more nodes can register
    #[arg(short, long)]
    pub ready: bool,
}

/// Options of `pmd debug`.
#[derive(Debug, Args)]
pub struct Debug {
    /// The .tar.gz file to write [default: pmd-debug-PORT.tar.gz in the current directory]
    pub file: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
}

/// Options of `pmd takeover`.
#[derive(Debug, Args)]
pub struct Takeover {
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the nodes to come back
    #[arg(long, short_alias = 'w', value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub wait: Duration,
}

/// Options of `pmd handover`.
#[derive(Debug, Args)]
pub struct Handover {
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the nodes to come back
    #[arg(long, short_alias = 'w', value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    pub wait: Duration,
    /// The epmd to start [default: from the newest Erlang installation, or from PATH]
    #[arg(long, value_name = "FILE")]
    pub epmd: Option<PathBuf>,
    /// Hand over even if epmd cannot hold all nodes
    #[arg(long)]
    pub force: bool,
}

/// Arguments of the `epmd` personality.
#[derive(Debug, Args)]
pub struct Epmd {
    /// Options of epmd
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub words: Vec<OsString>,
}
