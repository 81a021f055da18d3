//! The daemon itself: its status, its health and its end.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterStatus;
use super::tunnel::TunnelStatus;
use crate::base::stats::Counts;
use crate::control::json;
use crate::directory::services::Metadata;

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
