//! Lookups.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::directory::services::Metadata;

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
