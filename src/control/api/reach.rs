//! Why daemons do not connect: rejected connections, and a test of the path to another daemon.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::ErrorInfo;
use crate::control::json;

/// `GET /v1/refusals`: connections that this daemon or its peer rejected, and tunnels that were refused, within the
/// last day; a few dozen at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalList {
    /// The connections, latest first.
    pub refusals: Vec<Refusal>,
}

/// Rejected connections with one address for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// Whether this daemon dialled, rather than the peer.
    pub dialled: bool,
    /// `cookie`, `tls`, `cluster`, `version`, `identity`, `other`, `refused` (by the peer), `timeout`, `connection`,
    /// `protocol`, `full`, `rule` or `tunnel`; and more in later versions.
    pub reason: String,
    /// The reason, in a sentence.
    pub what: String,
    /// How many there were.
    pub count: u64,
    /// When it happened first.
    #[serde(with = "json::rfc3339_ms")]
    pub first_at: Timestamp,
    /// When it happened last.
    #[serde(with = "json::rfc3339_ms")]
    pub last_at: Timestamp,
}

/// The body of `POST /v1/reach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Addresses of one daemon, as for [`Join`](super::Join); eight at most.
    pub addresses: Vec<String>,
    /// The id that the daemon must have; absent if any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The answer to `POST /v1/reach`: all addresses are tried at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The first address at which the daemon completed the handshake; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The addresses that failed.
    pub failed: Vec<ReachFailure>,
}

/// An address that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachFailure {
    /// The address.
    pub asked: String,
    /// The step that failed.
    #[serde(rename = "leg")]
    pub step: ReachStep,
    /// The error.
    pub error: ErrorInfo,
}

/// A step of connecting to another daemon, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachStep {
    /// Resolving the name.
    Name,
    /// Routing to the host.
    Route,
    /// Any response at all; missing, for example, if a firewall drops packets.
    Timeout,
    /// A listener on the port; the host refused the connection.
    Listener,
    /// The handshake.
    Handshake,
    /// The certificate or key.
    Tls,
    /// The cluster's name and version, and the peer's own checks.
    Cluster,
    /// The cluster secret.
    Cookie,
}
