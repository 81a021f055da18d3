//! The event stream.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;

/// The data of one event of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// When it happened.
    #[serde(with = "json::rfc3339_ms")]
    pub at: Timestamp,
    /// What happened: `name_up`, `name_down`, `service_up`, `service_down`, or to a member of the cluster `node_up`,
    /// `node_suspect`, `node_down`, `node_left`; and more in later versions.
    pub kind: String,
    /// The name of the Erlang node or service; for a member, the name of its host.
    pub name: String,
    /// The port of the Erlang node or service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The host where it happened.
    pub host: String,
    /// The id of that host's daemon, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The reason, if there are several possible ones; of `node_left`, `left` or `expelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The data of `hello`, the first message of every event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The start of the daemon that the event numbers belong to.
    pub boot_id: String,
    /// The number of the latest event.
    pub last: u64,
}

/// The data of a `gap`: events were requested that are no longer available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The reason.
    pub reason: GapReason,
    /// How many, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// Why events are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// They are older than what the daemon keeps.
    TooOld,
    /// The daemon was restarted, and its numbers with it.
    Restarted,
}
