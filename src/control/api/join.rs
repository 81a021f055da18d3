//! Joining a cluster, and leaving it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::error::ErrorInfo;

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
    pub error: ErrorInfo,
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
