//! The cluster: its members, the links to them and what discovery has found.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;
use crate::directory::services::Metadata;

/// The cluster section of [`Status`](super::Status); absent if the daemon is not a member of one, as when it was
/// started as `epmd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The name of the cluster.
    pub name: String,
    /// This daemon's id: the SHA-256 of its public key, 64 hexadecimal digits.
    pub id: String,
    /// How daemons prove their identity.
    pub identity: IdentityMode,
    /// The addresses at which other daemons can reach this one, best first.
    pub addresses: Vec<SocketAddr>,
    /// Whether it has left and not rejoined.
    pub left: bool,
    /// Members that are alive or suspected, this daemon included.
    pub members: usize,
    /// How many of them are suspected to have failed.
    pub suspects: usize,
    /// Links to other daemons.
    pub links: usize,
    /// How many of these peers last reported the same fingerprint.
    pub agreeing: usize,
    /// Whether all of them did.
    pub converged: bool,
    /// The fingerprint of the whole registry, 64 hexadecimal digits. Equal fingerprints mean equal members and entries.
    pub fingerprint: String,
    /// Erlang nodes in the whole cluster.
    pub names: usize,
    /// Services in the whole cluster.
    pub services: usize,
    /// When this daemon's certificate expires; only with a certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::rfc3339_ms_option")]
    pub certificate_expires_at: Option<Timestamp>,
}

/// How daemons prove their identity, in addition to the cluster secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMode {
    /// By a key that each daemon generates.
    Auto,
    /// By a certificate of the cluster's certificate authority.
    Ca,
}

/// `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// The name of the cluster.
    pub cluster: String,
    /// Its members, this daemon first, then by host name.
    pub nodes: Vec<Node>,
}

/// The state of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Alive.
    Alive,
    /// A daemon could not reach it, and it has not refuted the suspicion yet.
    Suspect,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// The name of its host; empty until it is known.
    pub host: String,
    /// Whether it is the daemon that answers this request.
    pub oneself: bool,
    /// Its state.
    pub state: NodeState,
    /// The addresses at which it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// Its version.
    pub version: String,
    /// The metadata of its host.
    pub metadata: Metadata,
    /// Erlang nodes registered on its host.
    pub names: usize,
    /// Services registered on its host.
    pub services: usize,
    /// When it started, by its own clock.
    #[serde(with = "json::rfc3339_ms")]
    pub started_at: Timestamp,
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerList {
    /// The links, by host name of the peer.
    pub peers: Vec<Peer>,
}

/// How traffic reaches a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Over a direct connection.
    Direct,
}

/// A link to another daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's id.
    pub id: String,
    /// The name of its host; empty until it is known.
    pub host: String,
    /// The peer's address.
    pub address: SocketAddr,
    /// How traffic reaches it.
    pub path: Path,
    /// Whether this daemon dialled.
    pub dialled: bool,
    /// For how long the link has been up.
    pub up_seconds: u64,
    /// The round-trip time, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How far the peer's clock is ahead of this host's; negative if it is behind, absent until the peer reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Phi of the failure detector: minus the decimal logarithm of the probability that suspecting the peer is wrong.
    pub phi: f64,
    /// Time since its last heartbeat.
    pub heard_ms: u64,
    /// Bytes received, encrypted.
    pub received_bytes: u64,
    /// Bytes sent, encrypted.
    pub sent_bytes: u64,
    /// Whether the peer last reported the same fingerprint.
    pub agrees: bool,
}

/// `GET /v1/discover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The daemons that discovery has found, joined or not, by cluster and address.
    pub found: Vec<Found>,
}

/// A daemon that discovery has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The plugin: `seeds`, `broadcast`, `dns` or `exec`.
    pub source: String,
    /// Its address: `HOST:PORT`.
    pub address: String,
    /// The name of its cluster, if the plugin knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Whether it belongs to a cluster of the same name with a different secret.
    #[serde(default)]
    pub other_cookie: bool,
    /// Time since it was last found.
    pub heard_ms: u64,
    /// Whether it is linked or a member.
    pub member: bool,
}
