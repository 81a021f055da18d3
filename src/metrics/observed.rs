//! A snapshot of a daemon for monitoring, as plain values.

use rustix::time::{ClockId, clock_gettime};

use pmd_epmd::counters::Counts as EpmdCounts;
use pmd_epmd::latency::Snapshot;

use crate::base::stats::Counts;

/// A daemon at one moment.
#[derive(Debug, Default)]
pub struct Observed {
    /// The name that the daemon was started as: `pmd` or `epmd`.
    pub called: &'static str,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Erlang nodes registered on this host.
    pub names: usize,
    /// The most that can be registered.
    pub names_limit: usize,
    /// Services registered on this host.
    pub services: usize,
    /// Counters of the EPMD port.
    pub epmd: EpmdCounts,
    /// All other counters.
    pub counts: Counts,
    /// Latency of EPMD requests.
    pub durations: Vec<Snapshot>,
    /// Open connections.
    pub connections: Connections,
    /// The most file descriptors that can be open.
    pub descriptors_limit: usize,
    /// The cluster; none if the daemon is not a member of one or is shutting down.
    pub cluster: Option<Cluster>,
    /// Claims; none without voters.
    pub claims: Option<Claims>,
    /// Tunnels; none if the daemon is not a member of a cluster.
    pub tunnels: Option<Tunnels>,
    /// The process.
    pub process: Process,
}

impl Observed {
    /// Counters of traffic between daemons; none if this one is not a member of a cluster.
    pub fn traffic(&self) -> Option<&Counts> {
        self.tunnels.as_ref().map(|_| &self.counts)
    }
}

/// Open connections, by class.
#[derive(Debug, Default)]
pub struct Connections {
    /// Those that hold a name.
    pub registered: usize,
    /// Those whose request is incomplete, or whose answer is not yet read.
    pub waiting: usize,
    /// Those whose registration was refused and whose node has not closed them.
    pub refused: usize,
    /// Those to other daemons.
    pub link: usize,
}

/// The cluster, as this daemon sees it.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Members that are alive, this daemon included.
    pub alive: usize,
    /// Members that are suspected.
    pub suspect: usize,
    /// Whether this daemon has left.
    pub left: bool,
    /// Erlang nodes of live members.
    pub names: usize,
    /// Services of live members.
    pub services: usize,
    /// Bytes of all keys and values in the registry.
    pub state_bytes: usize,
    /// Deleted entries that are kept as tombstones.
    pub tombstones: usize,
    /// Links to other daemons, at most one for each peer.
    pub links: Vec<Link>,
    /// Cluster secrets that are accepted.
    pub secrets: usize,
    /// When this daemon's certificate expires, in seconds since the Unix epoch; none without a certificate authority.
    pub certificate_expires: Option<i64>,
}

impl Cluster {
    /// Whether every peer has reported the registry that this daemon has.
    pub fn agrees(&self) -> bool {
        let alone = self.alive + self.suspect == 1;
        !self.left && self.links.iter().all(|link| link.agrees) && (alone || !self.links.is_empty())
    }
}

/// A link to another daemon.
#[derive(Debug, Default)]
pub struct Link {
    /// The id of the peer.
    pub peer: String,
    /// The name of its host.
    pub host: String,
    /// The round-trip time, if known.
    pub rtt_us: Option<u32>,
    /// How far its clock is ahead, if known.
    pub clock_ahead_ms: Option<i64>,
    /// Phi of the failure detector.
    pub phi: f64,
    /// Bytes received, encrypted.
    pub received: u64,
    /// Bytes sent, encrypted.
    pub sent: u64,
    /// Whether the peer last reported the registry that this daemon has.
    pub agrees: bool,
}

/// Claims.
#[derive(Debug, Default)]
pub struct Claims {
    /// Those that this host holds.
    pub held: usize,
    /// Whether this host votes; none if it is no voter.
    pub votes: Option<bool>,
}

/// Tunnels.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// Open tunnels by the end on this host and by path.
    pub open: Vec<(&'static str, &'static str, usize)>,
    /// The most that can be open.
    pub limit: usize,
    /// Bytes carried, in both directions.
    pub bytes: u64,
}

/// What the kernel reports about this process.
#[derive(Debug, Default)]
pub struct Process {
    /// Open file descriptors.
    pub descriptors: Option<usize>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Processor time used, in seconds.
    pub cpu_seconds: f64,
}

impl Process {
    /// Reads the present values. Blocks on reads from /proc.
    pub fn now() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Process {
            // Listing them needs a descriptor itself.
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1)),
            resident_bytes: resident.map(|kib| kib * 1024),
            cpu_seconds: used.tv_sec as f64 + used.tv_nsec as f64 / 1e9,
        }
    }
}
