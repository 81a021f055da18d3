//! Lookups of nodes and services.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::directory::services::Metadata;

/// The kind of a registration.
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
    /// The name in the request.
    pub query: String,
    /// The nodes and services of this name, best first; at least one.
    pub matches: Vec<Match>,
}

/// A node or service that a lookup has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Its port.
    pub port: u16,
    /// The address at which programs on this host connect to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<SocketAddr>,
    /// The metadata of a service.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}
