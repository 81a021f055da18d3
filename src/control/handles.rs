//! The parts of the daemon that the API handlers read and change. Each handler takes only the parts it needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRef;
use pmd_epmd::counters::Counters as EpmdCounters;
use pmd_epmd::descriptors::Descriptors;
use pmd_epmd::latency::Latency;

use super::reload::Reloader;
use crate::base::clock::Monotonic;
use crate::base::shutdown::Shutdown;
use crate::base::stats::Counters;
use crate::claims::Claims;
use crate::cluster::membership::Cluster;
use crate::directory::Directory;
use crate::directory::services::Metadata;
use crate::link::accept::Handshakes;
use crate::link::refusals::Refusals;
use crate::tunnel::entry::TunnelEntrances;
use crate::tunnel::state::Tunnels;

/// Facts that do not change while the daemon runs.
#[derive(Debug)]
pub struct About {
    /// The name of this host.
    pub host: String,
    /// The port that clients are given.
    pub port: i32,
    /// The port that the daemon listens on.
    pub listen_port: u16,
    /// The addresses that the daemon listens on; inherited sockets may have none.
    pub listening: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// Whether KILL is allowed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// The metadata of this host.
    pub metadata: Metadata,
    /// When the daemon started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The same moment on the monotonic clock.
    pub started: Monotonic,
    /// Distinguishes this start of the daemon from any other.
    pub boot_id: String,
}

/// Counters and other measurements.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The process's descriptors.
    pub descriptors: Arc<Descriptors>,
    /// Counters of the EPMD port.
    pub epmd: Arc<EpmdCounters>,
    /// Latency of requests on the EPMD port.
    pub latency: Arc<Latency>,
    /// All other counters.
    pub counters: Arc<Counters>,
    /// Rejected connections.
    pub refusals: Arc<Refusals>,
    /// Handshakes in progress with daemons that have connected.
    pub handshakes: Arc<Handshakes>,
}

/// What a daemon has only as a member of a cluster.
#[derive(Debug)]
pub struct Member {
    /// The membership.
    pub cluster: Arc<Cluster>,
    /// Aliases and tunnels.
    pub tunnels: Arc<Tunnels>,
    /// Claims, if the configuration names voters.
    pub claims: Option<Arc<Claims>>,
    /// The local sockets that lead into tunnels.
    pub entrances: Arc<TunnelEntrances>,
}

/// Absent if the daemon is not a member of a cluster.
pub type MaybeMember = Option<Arc<Member>>;

/// All parts; each handler extracts its own.
#[derive(Debug, Clone)]
pub struct Handles {
    /// Constant facts.
    pub about: Arc<About>,
    /// Counters and other measurements.
    pub measured: Measured,
    /// The registrations.
    pub directory: Arc<Directory>,
    /// The cluster, if the daemon is a member of one.
    pub member: MaybeMember,
    /// Requests and reports the shutdown of the daemon.
    pub shutdown: Shutdown,
    /// Rereads the configuration.
    pub reloader: Arc<Reloader>,
}

macro_rules! parts {
    ($($part:ty: $field:ident,)*) => {
        $(impl FromRef<Handles> for $part {
            fn from_ref(handles: &Handles) -> $part {
                handles.$field.clone()
            }
        })*
    };
}

parts! {
    Arc<About>: about,
    Measured: measured,
    Arc<Directory>: directory,
    MaybeMember: member,
    Shutdown: shutdown,
    Arc<Reloader>: reloader,
}
