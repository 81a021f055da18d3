//! The types of the control API, as they are on the wire.
//!
//! Times are RFC 3339 in UTC with milliseconds; durations have their unit in the key. Readers must ignore keys
//! they do not know: later versions add some.

mod cluster;
mod tunnel;

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use pmd_protocol::epmd::Alive2;
use serde::{Deserialize, Serialize};

use super::json;
use crate::base::stats::Counts;
use crate::directory::services::Metadata;

pub use cluster::{
    ClusterName, ClusterNameList, ClusterService, ClusterServiceList, ClusterStatus, Discovered, Found,
    IdentityMode, Join, JoinFailure, Joined, JoinedPeer, Leave, LeftCluster, Node, NodeList, NodeState, Path,
    Peer, PeerList,
};
pub use cluster::{Reach, ReachFailure, ReachLeg, Reached, Refusal, RefusalList};
pub use tunnel::{AliasInfo, Leg, Ping, Pinged, TunnelInfo, TunnelList, TunnelSide, TunnelStatus};

/// What is common to all paths.
pub const PREFIX: &str = "/v1";

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Differs between any two starts of a daemon.
    pub boot_id: String,
    /// The name of this host.
    pub host: String,
    /// The port that clients are told.
    pub port: i32,
    /// The addresses that are listened on; none for sockets handed over by a supervisor that have no address.
    pub listening: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// When the daemon started.
    #[serde(with = "json::rfc3339_ms")]
    pub started_at: Timestamp,
    /// For how long it has been running.
    pub uptime_seconds: u64,
    /// Whether KILL is obeyed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// What the host says about itself.
    pub metadata: Metadata,
    /// Erlang nodes.
    pub names: NameNumbers,
    /// Services.
    pub services: ServiceNumbers,
    /// Open descriptors.
    pub descriptors: DescriptorNumbers,
    /// What has been counted since the start.
    pub counters: Counts,
    /// The cluster, if the daemon takes part in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// Aliases and tunnels, if the daemon takes part in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<TunnelStatus>,
    /// What should be looked after, in sentences.
    pub warnings: Vec<String>,
}

/// How many Erlang nodes there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameNumbers {
    /// Registered, the adopted ones included.
    pub registered: usize,
    /// Taken over from another port mapper and not back yet.
    pub adopted: usize,
    /// Left, but remembered with their creation.
    pub old: usize,
    /// The most that can be registered.
    pub limit: usize,
}

/// How many services there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNumbers {
    /// Registered.
    pub registered: usize,
    /// The most that can be registered.
    pub limit: usize,
}

/// How many descriptors are in use, by what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorNumbers {
    /// The most that can be open.
    pub limit: usize,
    /// Connections that hold a name.
    pub registered: usize,
    /// Connections whose request is not complete or whose answer is not read, and many control connections.
    pub waiting: usize,
    /// Connections whose registration was refused and whose node has not closed them.
    pub refused: usize,
}

/// `GET /v1/names`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameList {
    /// The name of the host that the nodes run on.
    pub host: String,
    /// The nodes, the newest first.
    pub names: Vec<Name>,
}

/// A registered Erlang node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The part of the node name before the `@`.
    pub name: String,
    /// Its distribution port.
    pub port: u16,
    /// Tells this life of the name from earlier ones.
    pub creation: u32,
    /// When it registered.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// For how long it has been registered.
    pub age_seconds: u64,
    /// 77 for a normal node, 72 and 104 for hidden and C nodes, 110 for Java.
    pub node_type: u8,
    /// The highest distribution version it speaks.
    pub highest_version: u16,
    /// The lowest distribution version it speaks.
    pub lowest_version: u16,
    /// Whether it was taken over from another port mapper and has not come back yet.
    pub adopted: bool,
}

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// The name of the host that the services run on.
    pub host: String,
    /// The services, by name.
    pub services: Vec<ServiceInfo>,
}

/// A registered service. The answer to `POST /v1/services`, the first line of the one to `POST
/// /v1/services/hold`, and the answer to `DELETE /v1/services/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// What its owner says about it.
    pub metadata: Metadata,
    /// When it registered first.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// When it is dropped unless it registers again.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::rfc3339_ms_option")]
    pub expires_at: Option<Timestamp>,
    /// Whether it lives as long as a connection.
    pub held: bool,
}

/// The body of `POST /v1/services` and `POST /v1/services/hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Its name.
    pub name: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// What its owner says about it.
    #[serde(default)]
    pub metadata: Metadata,
    /// Milliseconds until it is dropped unless it registers again; not for a service that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// What something that has a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An Erlang node.
    Name,
    /// A service.
    Service,
}

/// `GET /v1/lookup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// What was asked for.
    pub query: String,
    /// All that goes by that name, the best first; at least one.
    pub matches: Vec<Match>,
}

/// One answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon, if this one takes part in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Its port.
    pub port: u16,
    /// Where a program on the host of the daemon that answers can connect to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<SocketAddr>,
    /// What a service's owner says about it.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// The data of one event of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// When it happened.
    #[serde(with = "json::rfc3339_ms")]
    pub at: Timestamp,
    /// What happened: `name_up`, `name_down`, `service_up`, `service_down`, or to a daemon of the cluster `node_up`,
    /// `node_suspect`, `node_down`, `node_left`; and more in later versions.
    pub kind: String,
    /// The name of the Erlang node or service; of a daemon, that of its host.
    pub name: String,
    /// The port of the Erlang node or service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The host where it happened.
    pub host: String,
    /// The id of that host's daemon, if this one takes part in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Why, where there is more than one possible reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The data of the `hello` with which every event stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which start of the daemon the numbers belong to.
    pub boot_id: String,
    /// The number of the latest event.
    pub last: u64,
}

/// The data of a `gap`: events that were asked for and are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// How many, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// Why events are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The reader was away for longer than events are kept.
    TooOld,
    /// The daemon was restarted since; the numbers begin anew.
    Restarted,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether there is nothing to complain of.
    pub healthy: bool,
    /// Complaints, in sentences.
    pub problems: Vec<String>,
}

/// The answer to `POST /v1/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// The process that ends.
    pub pid: u32,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The configuration file, if there is a place for one.
    pub config_file: Option<PathBuf>,
    /// Keys whose new values are in force now.
    pub applied: Vec<String>,
    /// Keys whose new values need a restart.
    pub needs_restart: Vec<String>,
}

/// The body of `POST /v1/names/adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// What another port mapper had registered.
    pub names: Vec<AdoptedName>,
}

/// A node as another port mapper knew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptedName {
    /// The part of the node name before the `@`.
    pub name: String,
    /// Its distribution port.
    pub port: u16,
    /// See [`Name::node_type`].
    pub node_type: u8,
    /// 0 for TCP/IPv4.
    pub protocol: u8,
    /// See [`Name::highest_version`].
    pub highest_version: u16,
    /// See [`Name::lowest_version`].
    pub lowest_version: u16,
    /// What else the node registered, in base 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "json::base16")]
    pub extra: Vec<u8>,
}

impl AdoptedName {
    /// As a port mapper's client would register it.
    pub fn as_alive2(&self) -> Alive2<'_> {
        Alive2 {
            port: self.port,
            node_type: self.node_type,
            protocol: self.protocol,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            name: &self.name,
            extra: &self.extra,
        }
    }
}

/// The answer to `POST /v1/names/adopt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptOutcome {
    /// How many are answered for from now on.
    pub adopted: usize,
    /// How many were registered already.
    pub registered: usize,
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorInfo,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// For programs: one of the codes of [`ErrorCode`], and more in later versions.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// The codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood, or asks for something that cannot be.
    InvalidRequest,
    /// There is nothing of that name.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The name is taken.
    Conflict,
    /// The request is longer than it may be.
    TooLarge,
    /// The request did not come in time.
    Timeout,
    /// There is no room for more.
    Full,
    /// The daemon is about to end.
    Ending,
    /// The daemon takes no part in a cluster.
    NoCluster,
    /// The name of a daemon to be joined has no address.
    Unresolvable,
    /// Nobody answers at the address of a daemon to be joined.
    Unreachable,
    /// A daemon to be joined does not let this one in, or is not to be let in itself.
    Refused,
    /// A daemon was to join itself.
    Oneself,
    /// A node is registered, and does not accept connections or does not answer as nodes do.
    Silent,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "invalid_request",
            ErrorCode::NotFound => "not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::Conflict => "conflict",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Full => "full",
            ErrorCode::Ending => "ending",
            ErrorCode::NoCluster => "no_cluster",
            ErrorCode::Unresolvable => "unresolvable",
            ErrorCode::Unreachable => "unreachable",
            ErrorCode::Refused => "refused",
            ErrorCode::Oneself => "oneself",
            ErrorCode::Silent => "silent",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::InvalidRequest | ErrorCode::Oneself => 400,
            ErrorCode::Refused => 403,
            ErrorCode::NotFound | ErrorCode::Unresolvable => 404,
            ErrorCode::MethodNotAllowed => 405,
            ErrorCode::Timeout => 408,
            ErrorCode::Conflict | ErrorCode::NoCluster => 409,
            ErrorCode::TooLarge => 413,
            ErrorCode::Unreachable | ErrorCode::Silent => 502,
            ErrorCode::Full | ErrorCode::Ending => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_name_survives_the_wire() {
        let name = AdoptedName {
            name: "rabbit \u{1b}[31m".into(),
            port: 25672,
            node_type: 77,
            protocol: 0,
            highest_version: 6,
            lowest_version: 5,
            extra: vec![0, 1, 0xfe, 0xff],
        };
        let json = serde_json::to_string(&name).expect("it is plain data");
        assert!(json.contains("\"extra\":\"0001feff\""), "{json}");
        assert_eq!(serde_json::from_str::<AdoptedName>(&json).expect("it is right"), name);
        for wrong in ["\"abc\"", "\"zz\"", "\"ä\"", "7"] {
            let json = json.replace("\"0001feff\"", wrong);
            assert!(serde_json::from_str::<AdoptedName>(&json).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_service_without_an_end_has_no_key_for_it() {
        let service = ServiceInfo {
            name: "web".into(),
            port: 80,
            metadata: Metadata::new(),
            registered_at: json::timestamp(0),
            expires_at: None,
            held: false,
        };
        let json = serde_json::to_string(&service).expect("it is plain data");
        assert_eq!(
            json,
            r#"{"name":"web","port":80,"metadata":{},"registered_at":"1970-01-01T00:00:00.000Z","held":false}"#
        );
        assert_eq!(serde_json::from_str::<ServiceInfo>(&json).expect("it is right"), service);
    }

    #[test]
    fn codes_are_what_serde_makes_of_them() {
        use ErrorCode::{
            Conflict, Ending, Full, InvalidRequest, MethodNotAllowed, NoCluster, NotFound, Oneself, Refused,
            Timeout, TooLarge, Unreachable, Unresolvable,
        };
        let first = [Conflict, Ending, Full, InvalidRequest, MethodNotAllowed, NotFound, Timeout, TooLarge];
        for code in first.into_iter().chain([NoCluster, Oneself, Refused, Unreachable, Unresolvable]) {
            assert_eq!(serde_json::to_value(code).expect("a string"), code.as_str());
        }
    }
}
