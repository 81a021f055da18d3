//! Joining a cluster, and leaving it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::error::ErrorInfo;

/// The body of `POST /v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Addresses of daemons: `HOST`, `HOST:PORT`, `[IPV6]:PORT`. The default port is this daemon's own.
    pub addresses: Vec<String>,
    /// How long joining may take; 10 s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The answer to `POST /v1/join` if at least one daemon admitted this one.
///
/// Otherwise the answer is the error of the first address: `unresolvable` (404), `unreachable` (502), `refused` (403:
/// cluster secret, certificate, cluster or version), `oneself` (400) or `timeout` (408).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The name of the cluster.
    pub cluster: String,
    /// The daemons that admitted this one.
    pub peers: Vec<JoinedPeer>,
    /// Addresses that failed.
    pub failed: Vec<JoinFailure>,
    /// Members now, this daemon included.
    pub members: usize,
}

/// A daemon that admitted this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedPeer {
    /// The address in the request.
    pub asked: String,
    /// The address that answered.
    pub address: SocketAddr,
    /// The daemon's id.
    pub id: String,
    /// The name of its host.
    pub host: String,
}

/// An address that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFailure {
    /// The address in the request.
    pub asked: String,
    /// The error, as if it were the only address.
    pub error: ErrorInfo,
}

/// The body of `POST /v1/leave`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Tell this member to leave instead of this daemon: its address or the name of its host. It stays out of the
    /// cluster until it is told to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// The answer to `POST /v1/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftCluster {
    /// The name of the cluster.
    pub cluster: String,
    /// The number of other members; with `peer`, the number of members that were told to leave.
    pub members: usize,
}
