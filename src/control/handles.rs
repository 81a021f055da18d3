//! What the handlers of the API read and change. Each handler takes the parts that it needs, and no others.

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
use crate::cluster::membership::Cluster;
use crate::directory::Directory;
use crate::directory::services::Metadata;
use crate::link::refusals::Refusals;
use crate::tunnel::entry::TunnelEntrances;
use crate::tunnel::state::Tunnels;

/// What does not change while a daemon runs.
#[derive(Debug)]
pub struct About {
    /// The name of this host.
    pub host: String,
    /// The port that clients are told.
    pub port: i32,
    /// The port that the daemon listens on.
    pub listen_port: u16,
    /// The addresses that it listens on; empty for inherited sockets that have none.
    pub listening: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// Whether KILL is obeyed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// What this host says about itself.
    pub metadata: Metadata,
    /// When the daemon started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The same moment, to be measured by.
    pub started: Monotonic,
    /// Tells this run of the daemon from any other.
    pub boot_id: String,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The process's descriptors.
    pub descriptors: Arc<Descriptors>,
    /// What the EPMD port counts.
    pub epmd: Arc<EpmdCounters>,
    /// How long requests on the EPMD port take.
    pub latency: Arc<Latency>,
    /// What everything else counts.
    pub counters: Arc<Counters>,
    /// Who was refused.
    pub refusals: Arc<Refusals>,
}

/// This daemon's part in a cluster.
#[derive(Debug)]
pub struct Member {
    /// The membership.
    pub cluster: Arc<Cluster>,
    /// Aliases and tunnels.
    pub tunnels: Arc<Tunnels>,
    /// The entries that lead into tunnels.
    pub entrances: Arc<TunnelEntrances>,
}

/// The part in a cluster, if the daemon takes one.
pub type MaybeMember = Option<Arc<Member>>;

/// All parts, from which each handler gets its own.
#[derive(Debug, Clone)]
pub struct Handles {
    /// What does not change.
    pub about: Arc<About>,
    /// What is measured.
    pub measured: Measured,
    /// What is registered.
    pub directory: Arc<Directory>,
    /// The cluster.
    pub member: MaybeMember,
    /// The end of the daemon.
    pub shutdown: Shutdown,
    /// Reads the configuration again.
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
