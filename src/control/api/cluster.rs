//! What the control API says about the cluster.

use std::net::{IpAddr, SocketAddr};

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

/// `GET /v1/refusals`: daemons that were not let in or have not let this one in, and tunnels that were refused. Those of
/// the last day, and not more than a few dozen of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalList {
    /// The latest first.
    pub refusals: Vec<Refusal>,
}

/// One address that was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// Whether this daemon dialled; else the other did.
    pub dialled: bool,
    /// `cookie`, `tls`, `cluster`, `version`, `identity`, `other`, `refused` (by the other side), `timeout`, `connection`,
    /// `protocol`, `full`, `rule` or `tunnel`, and more in later versions.
    pub reason: String,
    /// For people.
    pub what: String,
    /// How often.
    pub count: u64,
    /// First time.
    #[serde(with = "json::rfc3339_ms")]
    pub first_at: Timestamp,
    /// Last time.
    #[serde(with = "json::rfc3339_ms")]
    pub last_at: Timestamp,
}

/// The body of `POST /v1/reach`: whether a daemon can be reached, cookie and all, without joining it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Addresses of one daemon, as for [`Join`]; eight at most.
    pub addresses: Vec<String>,
    /// Its id, if another daemon there is not good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The answer: all addresses were tried at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The first that led to the daemon, and both have proven that they belong together; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Those that did not.
    pub failed: Vec<ReachFailure>,
}

/// An address that did not lead to a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachFailure {
    /// The address.
    pub asked: String,
    /// The leg of the way that failed.
    pub leg: ReachLeg,
    /// Why.
    pub error: super::ErrorInfo,
}

/// A leg of the way to another daemon, in the order in which it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachLeg {
    /// The name has no address.
    Name,
    /// There is no way to the host.
    Route,
    /// Nothing came back, as when a firewall drops packets.
    Timeout,
    /// The host has refused the connection: nobody listens.
    Listener,
    /// Somebody listens, and does not do a handshake.
    Handshake,
    /// Certificate or key.
    Tls,
    /// Name or version of the cluster, or the other side's own reason.
    Cluster,
    /// The cookie.
    Cookie,
}

/// `GET /v1/names?scope=cluster`: Erlang nodes on all hosts; with `&host=HOST` on that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNameList {
    /// The nodes, by host and then by name.
    pub names: Vec<ClusterName>,
}

/// An Erlang node somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterName {
    /// The part of the node name before the `@`.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon.
    pub node_id: String,
    /// Its distribution port.
    pub port: u16,
    /// Tells this life of the name from earlier ones.
    pub creation: u32,
    /// When it registered, by that host's clock.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// See [`Name::node_type`](super::Name::node_type).
    pub node_type: u8,
    /// See [`Name::highest_version`](super::Name::highest_version).
    pub highest_version: u16,
    /// See [`Name::lowest_version`](super::Name::lowest_version).
    pub lowest_version: u16,
}

/// `GET /v1/services?scope=cluster`: services on all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterServiceList {
    /// The services, by name and then by host.
    pub services: Vec<ClusterService>,
}

/// A service somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterService {
    /// Its name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon.
    pub node_id: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// What its owner says about it.
    pub metadata: Metadata,
    /// When it registered first, by that host's clock.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
}

/// The body of `POST /v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Addresses of daemons: `HOST`, `HOST:PORT`, `[IPV6]:PORT`. Without a port, that of the daemon that is asked.
    pub addresses: Vec<String>,
    /// How long all of it may take; 10 s if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The answer to `POST /v1/join` if at least one address led to a daemon that has let this one in.
///
/// If none did, the answer is an error: `unresolvable` (404), `unreachable` (502), `refused` (403: cookie, certificate,
/// cluster or version), `oneself` (400) or `timeout` (408), about the first of the addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The name of the cluster.
    pub cluster: String,
    /// Who has let this daemon in.
    pub peers: Vec<JoinedPeer>,
    /// Addresses that led nowhere.
    pub failed: Vec<JoinFailure>,
    /// Members now, this one included.
    pub members: usize,
}

/// A daemon that has let this one in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedPeer {
    /// The address that was given.
    pub asked: String,
    /// The address that answered.
    pub address: SocketAddr,
    /// The daemon's id.
    pub id: String,
    /// The name of its host.
    pub host: String,
}

/// An address that led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFailure {
    /// The address that was given.
    pub asked: String,
    /// Why, as in the error that there would have been.
    pub error: super::ErrorInfo,
}

/// The body of `POST /v1/leave`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Not this daemon shall leave but the member that goes by this: an address of it, or the name of its host. It stays
    /// away until it is told to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// The answer to `POST /v1/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftCluster {
    /// The name of the cluster.
    pub cluster: String,
    /// Members that were there besides this one; or the peers that were dropped.
    pub members: usize,
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
