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
