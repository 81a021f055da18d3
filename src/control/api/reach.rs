//! Why daemons do not connect: rejected connections, and a test of the path to another daemon.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::ErrorInfo;
use crate::control::json;

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
    /// Addresses of one daemon, as for [`Join`](super::Join); eight at most.
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
    pub error: ErrorInfo,
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
