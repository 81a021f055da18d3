//! Aliases, tunnels and the test of each hop to a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lookup::Kind;

/// The tunnel section of [`Status`](super::Status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Open tunnels with an end on this host.
    pub open: usize,
    /// The most that can be open.
    pub limit: usize,
    /// Bytes carried since the daemon started, in both directions.
    pub bytes: u64,
    /// Listening sockets that lead to other hosts.
    pub entries: usize,
    /// Hosts that have an alias.
    pub aliases: usize,
}

/// `GET /v1/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelList {
    /// The resolver file for Erlang nodes, for `ERL_INETRC`.
    pub inetrc: PathBuf,
    /// The hosts file that it names.
    pub hosts_file: PathBuf,
    /// The folder of the epmd module for Erlang nodes, `pmd_epmd`, for their code path.
    pub module_folder: PathBuf,
    /// The EPMD port of this daemon. Nodes need to be given it if it is not 4369.
    pub port: u16,
    /// The name of this host.
    #[serde(default)]
    pub host: String,
    /// The alias of this host, at which all other hosts reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Ipv4Addr>,
    /// The loopback address of each other host.
    pub aliases: Vec<AliasInfo>,
    /// The open tunnels.
    pub tunnels: Vec<TunnelInfo>,
}

/// The loopback address of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasInfo {
    /// The host, in lower case.
    pub host: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Whether the hosts file lists it. It does not list hosts whose names the system's resolver knows.
    pub listed: bool,
    /// The names that it lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Why it lists none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<Unlisted>,
    /// Whether all hosts agree on the address. Otherwise its daemon is of an older version, or another host claims the same.
    #[serde(default)]
    pub agreed: bool,
    /// Whether nodes on this host reach all of its nodes without tunnels, as far as it has any.
    pub plain: bool,
}

/// Why the hosts file does not list a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlisted {
    /// It is no member at the moment.
    Absent,
    /// It is outside this host's domain, and no rule names it.
    OtherDomain,
    /// Another program has the port of pmd at its alias.
    PortTaken,
    /// The system's resolver knows its names.
    Known,
}

/// The end of a tunnel that is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelSide {
    /// A program on this host connected.
    Entry,
    /// It leads to a program on this host.
    Exit,
}

/// An open tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelInfo {
    /// The end on this host.
    pub side: TunnelSide,
    /// The kind of its target.
    pub kind: Kind,
    /// The name of its target.
    pub name: String,
    /// The host at the other end.
    pub host: String,
    /// Its path: `direct`, `reverse` or `relay`; and more in later versions.
    pub path: String,
    /// Bytes carried, in both directions.
    pub bytes: u64,
}

/// The body of `POST /v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// `NODE@HOST`, or `NODE` for a node on this host.
    pub node: String,
}

/// The answer to `POST /v1/ping` if the node responded; otherwise the answer is the error of the hop that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// The name the node reports.
    pub node: String,
    /// Its host.
    pub host: String,
    /// Its distribution port.
    pub port: u16,
    /// The path: `local`, `direct`, `reverse` or `relay`; and more in later versions.
    pub path: String,
    /// The address of the other daemon, or of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The hops, in order.
    #[serde(rename = "legs")]
    pub hops: Vec<Hop>,
    /// Where a program on this host connects to in order to reach the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<SocketAddr>,
    /// Whether the node speaks its protocol in TLS. Then its name, certificate and cookie are not checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// What the node says to the Erlang cookie of the user who asks. Only the command line has it and fills this in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieTest>,
    /// Their total time.
    pub took_us: u64,
}

/// What a node says to an Erlang cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CookieTest {
    /// Its cookie is the same.
    Accepted,
    /// Its cookie differs.
    Refused,
    /// It was not asked.
    NotTried,
}

/// A hop to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The hop: `lookup`, `daemon`, `exit`, `greeting` or `cookie`; and more in later versions.
    #[serde(rename = "leg")]
    pub hop: String,
    /// The result, in words.
    pub what: String,
    /// How long it took.
    pub took_us: u64,
}
