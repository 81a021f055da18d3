//! The daemon itself: status, health, stop and reload.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterStatus;
use super::tunnel::TunnelStatus;
use crate::control::json;
use crate::directory::services::Metadata;

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Identifies this start of the daemon.
    pub boot_id: String,
    /// The name of this host.
    pub host: String,
    /// The EPMD port.
    pub port: i32,
    /// The addresses it listens on; inherited sockets without an address are omitted.
    pub listening: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// When the daemon started.
    #[serde(with = "json::rfc3339_ms")]
    pub started_at: Timestamp,
    /// Time since the start.
    pub uptime_seconds: u64,
    /// Whether KILL is allowed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// The metadata of this host.
    pub metadata: Metadata,
    /// Erlang nodes.
    pub names: NameNumbers,
    /// Services.
    pub services: ServiceNumbers,
    /// Open file descriptors.
    pub descriptors: DescriptorNumbers,
    /// Counters since the start.
    pub counters: Counts,
    /// The cluster, if the daemon is a member of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// Aliases and tunnels, if the daemon is a member of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<TunnelStatus>,
    /// Problems that need attention, in sentences.
    pub warnings: Vec<String>,
}

/// The number of Erlang nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameNumbers {
    /// Registered, adopted ones included.
    pub registered: usize,
    /// Taken over from another port mapper, and not registered again yet.
    pub adopted: usize,
    /// No longer registered, but remembered with their creation.
    pub old: usize,
    /// The most that can be registered.
    pub limit: usize,
}

/// The number of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNumbers {
    /// Registered.
    pub registered: usize,
    /// The most that can be registered.
    pub limit: usize,
}

/// File descriptors, by use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorNumbers {
    /// The most that can be open.
    pub limit: usize,
    /// Connections that hold a name.
    pub registered: usize,
    /// Connections whose request is incomplete or whose answer is not yet read, and most control connections.
    pub waiting: usize,
    /// Connections whose registration was refused and whose node has not closed them.
    pub refused: usize,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether there are no problems.
    pub healthy: bool,
    /// The problems, in sentences.
    pub problems: Vec<String>,
}

/// The answer to `POST /v1/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// The process id of the daemon that is stopping.
    pub pid: u32,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The path of the configuration file, if it has one.
    pub config_file: Option<PathBuf>,
    /// Keys whose new values were applied.
    pub applied: Vec<String>,
    /// Keys whose new values need a restart.
    pub needs_restart: Vec<String>,
}

/// Counters since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// On the EPMD port.
    #[serde(flatten)]
    pub epmd: pmd_epmd::counters::Counts,
    /// Everywhere else.
    #[serde(flatten)]
    pub others: crate::base::stats::Counts,
}
