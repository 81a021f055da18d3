//! What the control API says about aliases and tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lookup::Kind;

/// The part of [`Status`](super::Status) about aliases and tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Tunnels that are open, at either end.
    pub open: usize,
    /// The most that can be.
    pub limit: usize,
    /// Bytes that have gone through tunnels since the daemon started, both ways.
    pub bytes: u64,
    /// Listening sockets that lead to other hosts.
    pub entries: usize,
    /// Hosts that have an alias.
    pub aliases: usize,
}

/// `GET /v1/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelList {
    /// The resolver file for Erlang nodes: what `ERL_INETRC` is to be set to.
    pub inetrc: PathBuf,
    /// The hosts file that it names.
    pub hosts_file: PathBuf,
    /// The port of this daemon, which nodes have to know if it is not 4369.
    pub port: u16,
    /// Which loopback address stands for which host.
    pub aliases: Vec<AliasInfo>,
    /// What is open.
    pub tunnels: Vec<TunnelInfo>,
}

/// A loopback address that stands for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasInfo {
    /// The host, in lower case.
    pub host: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Whether the host's name means this address in the hosts file.
    pub listed: bool,
}

/// Which end of a tunnel is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelSide {
    /// A program here has connected.
    Entry,
    /// It leads to a program here.
    Exit,
}

/// A tunnel that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelInfo {
    /// Which end of it is here.
    pub side: TunnelSide,
    /// What kind of thing it leads to.
    pub kind: Kind,
    /// The name of that.
    pub name: String,
    /// The host of the other end.
    pub host: String,
    /// How it gets there: `direct`, `reverse` or `relay`; and more in later versions.
    pub path: String,
    /// Bytes that have gone through it, both ways.
    pub bytes: u64,
}

/// The body of `POST /v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// `NODE@HOST`, or `NODE` for one on this host.
    pub node: String,
}

/// The answer to `POST /v1/ping` if the node has answered; if not, the answer is the error of the leg that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// What the node calls itself.
    pub node: String,
    /// Its host.
    pub host: String,
    /// Its distribution port there.
    pub port: u16,
    /// How one gets there: `local`, `direct`, `reverse` or `relay`; and more in later versions.
    pub path: String,
    /// The address of the other daemon, or of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The legs of the way, in their order.
    pub legs: Vec<Leg>,
    /// All of them together.
    pub took_us: u64,
}

/// A leg of the way to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// What was done: `lookup`, `daemon`, `exit` or `greeting`; and more in later versions.
    pub leg: String,
    /// What came of it, in words.
    pub what: String,
    /// How long it took.
    pub took_us: u64,
}
