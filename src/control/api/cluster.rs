//! The cluster: its members, the links to them and what discovery has found.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;
use crate::directory::services::Metadata;

/// The part of [`Status`](super::Status) about the cluster; absent from a daemon that takes no part in one, as one
/// that was started by the name `epmd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The name of the cluster.
    pub name: String,
    /// This daemon's id: the SHA-256 of its public key, 64 hexadecimal digits.
    pub id: String,
    /// How daemons prove who they are.
    pub identity: IdentityMode,
    /// Where others are told that they can reach this daemon, best first.
    pub addresses: Vec<SocketAddr>,
    /// Whether it has left and not joined again.
    pub left: bool,
    /// Daemons in the cluster that are alive, this one included.
    pub members: usize,
    /// How many of them are suspected.
    pub suspects: usize,
    /// Standing links.
    pub links: usize,
    /// How many of these peers said last that they have the same fingerprint.
    pub agreeing: usize,
    /// Whether all of them did.
    pub converged: bool,
    /// The fingerprint of the whole registry, 64 hexadecimal digits. Equal ones mean equal members and equal entries.
    pub fingerprint: String,
    /// Erlang nodes in the whole cluster.
    pub names: usize,
    /// Services in the whole cluster.
    pub services: usize,
    /// When this daemon's certificate ends, if that means anything: with a certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::rfc3339_ms_option")]
    pub certificate_expires_at: Option<Timestamp>,
}

/// How daemons prove who they are, besides the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMode {
    /// By a key of their own, which each makes for itself.
    Auto,
    /// By a certificate of the cluster's own authority.
    Ca,
}

/// `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// The name of the cluster.
    pub cluster: String,
    /// Its daemons, this one first and then by the name of the host.
    pub nodes: Vec<Node>,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// As far as anybody knows, it lives.
    Alive,
    /// Somebody could not reach it, and it has not objected yet.
    Suspect,
}

/// A daemon of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// The name of its host; empty as long as it has not been heard.
    pub host: String,
    /// Whether it is the daemon that answers.
    pub oneself: bool,
    /// How it is.
    pub state: NodeState,
    /// Where it says that it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// The version of its program.
    pub version: String,
    /// What it says about itself.
    pub metadata: Metadata,
    /// Erlang nodes registered there.
    pub names: usize,
    /// Services registered there.
    pub services: usize,
    /// When it was started, by its own clock.
    #[serde(with = "json::rfc3339_ms")]
    pub started_at: Timestamp,
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerList {
    /// The standing links, by the name of the host at the other end.
    pub peers: Vec<Peer>,
}

/// How traffic gets to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Over a connection of its own.
    Direct,
}

/// A link to another daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's id.
    pub id: String,
    /// The name of its host; empty as long as it has not been heard.
    pub host: String,
    /// The address at the other end.
    pub address: SocketAddr,
    /// How traffic gets there.
    pub path: Path,
    /// Whether this daemon dialled.
    pub dialled: bool,
    /// For how long the link has been up.
    pub up_seconds: u64,
    /// The round-trip time, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How far the peer's clock is ahead of this host's, less than nothing if it is behind; once the peer has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// How sure it is that the peer is gone: minus the decimal logarithm of the chance to be wrong.
    pub phi: f64,
    /// How long ago its last heartbeat came.
    pub heard_ms: u64,
    /// Bytes received, encrypted.
    pub received_bytes: u64,
    /// Bytes sent, encrypted.
    pub sent_bytes: u64,
    /// Whether the peer said last that it has the same fingerprint.
    pub agrees: bool,
}

/// `GET /v1/discover`: what was found, whether or not it was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// By cluster and address.
    pub found: Vec<Found>,
}

/// A daemon that a discovery plugin has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The plugin: `seeds`, `broadcast`, `dns` or `exec`.
    pub source: String,
    /// Where it is said to be: `HOST:PORT`.
    pub address: String,
    /// The name of its cluster, where the plugin knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Whether it belongs to a cluster of that name with another cookie.
    #[serde(default)]
    pub other_cookie: bool,
    /// How long ago it was found last.
    pub heard_ms: u64,
    /// Whether there is a link to it, or it is a member.
    pub member: bool,
}
