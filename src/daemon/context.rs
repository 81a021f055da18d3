//! What the parts of a running daemon share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio_util::task::TaskTracker;

use crate::base::descriptors::Descriptors;
use crate::base::latency::Latency;
use crate::base::reserve::Reserve;
use crate::base::shutdown::Shutdown;
use crate::base::stats::Counters;
use crate::cluster::Cluster;
use crate::config::settings::Settings;
use crate::directory::local::Registry;
use crate::epmd::holder::Connection;
use crate::link::refusals::Refusals;
use crate::web::Door;

/// Everything a part of the daemon may need; each field looks after its own synchronisation.
#[derive(Debug)]
pub struct Context {
    /// What the daemon was started with.
    pub settings: Settings,
    /// Names and services.
    pub registry: Registry<Connection>,
    /// What has been counted.
    pub counters: Counters,
    /// Other daemons that were refused.
    pub refusals: Refusals,
    /// How long requests take.
    pub latency: Latency,
    /// Who uses how many descriptors.
    pub descriptors: Descriptors,
    /// The descriptor to accept with when there is no other.
    pub reserve: Reserve,
    /// Its part in a cluster, once that has begun.
    pub cluster: OnceLock<Arc<Cluster>>,
    /// Where connections that speak HTTP are left; none if there is no status page.
    pub web: OnceLock<Door>,
    /// How to end it.
    pub shutdown: Shutdown,
    /// Everything but the EPMD port that listens where a successor will: closed before that port is free for one.
    pub doors: TaskTracker,
    /// The addresses it listens on; empty for inherited sockets that have none.
    pub listening: Vec<SocketAddr>,
    /// When it started, in milliseconds since the Unix epoch: together with the pid, its boot id.
    pub started_ms: u64,
}

impl Context {
    /// The context of a daemon that starts now, listens on `listening` and may open `descriptor_limit`
    /// descriptors.
    pub fn new(settings: Settings, listening: Vec<SocketAddr>, descriptor_limit: usize) -> Arc<Context> {
        Arc::new(Context {
            registry: Registry::new(settings.port, settings.old_names),
            settings,
            counters: Counters::default(),
            refusals: Refusals::default(),
            latency: Latency::default(),
            descriptors: Descriptors::new(descriptor_limit),
            reserve: Reserve::new(),
            cluster: OnceLock::new(),
            web: OnceLock::new(),
            shutdown: Shutdown::new(),
            doors: TaskTracker::new(),
            listening,
            started_ms: now_ms(),
        })
    }
}

/// The wall clock, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
