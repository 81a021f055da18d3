//! The shared state of tunnels: handles to the rest of the daemon, aliases, open tunnels and rules.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::NodeId;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::dialback::Requests;
use super::inquiries::{Askers, Inquiries};
use super::path::Paths;
use super::reachability::Reachable;
use super::rendezvous::Rendezvous;
use super::rules;
use super::table::Table;
use crate::base::clock::Monotonic;
use crate::base::log::limited::{LimitedLog, Limits};
use crate::base::permit::Permit;
use crate::base::shutdown::Shutdown;
use crate::base::stats::Counters;
use crate::cluster::core::Core;
use crate::config::rules::Mode;
use crate::config::tunnel::{TunnelPolicy, TunnelSettings};
use crate::directory::Target;
use crate::directory::cluster::{ClusterDirectory, Registered};
use crate::directory::local::Local;
use crate::link::dial::Dialer;
use crate::link::local_identity::LocalIdentity;
use crate::link::refusals::Refusals;

/// Tunnels to one host that can be opened concurrently: fewer than the handshakes that a daemon accepts from one
/// address.
const OPENING: usize = 32;

/// The handles that tunnels need from the rest of the daemon.
#[derive(Debug)]
pub struct Parts {
    /// The settings of aliases and tunnels.
    pub settings: TunnelSettings,
    /// The port that the daemon reports to clients, and the one it listens on.
    pub ports: (i32, u16),
    /// The addresses on which the daemon listens.
    pub listening: Vec<SocketAddr>,
    /// This daemon's identity.
    pub identity: Arc<LocalIdentity>,
    /// The core thread.
    pub core: Core,
    /// The registry of this host.
    pub local: Arc<Local>,
    /// The nodes and services of other hosts.
    pub directory: Arc<ClusterDirectory>,
    /// Dials other daemons.
    pub dialer: Dialer,
    /// Counts tunnels.
    pub counters: Arc<Counters>,
    /// Counts connections and requests on the EPMD port, including those on aliases.
    pub epmd_counters: Arc<pmd_epmd::counters::Counters>,
    /// Remembers rejected peers.
    pub refusals: Arc<Refusals>,
    /// The budget of file descriptors.
    pub descriptors: Arc<Descriptors>,
    /// Tracks tasks that hold resources a successor needs. They end before the EPMD port is released.
    pub holding: TaskTracker,
    /// The shutdown of the daemon.
    pub shutdown: Shutdown,
}

/// The host that an alias represents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The host, in lower case.
    pub host: String,
    /// Whether all hosts agree on it.
    pub agreed: bool,
    /// The names of the host that the hosts file maps to this alias.
    pub names: Vec<String>,
    /// Why there are none.
    pub unlisted: Option<Unlisted>,
}

/// Why the hosts file does not list a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// It is no member at the moment.
    Absent,
    /// It is outside this host's domain, and no rule names it.
    OtherDomain,
    /// Another program has the port of pmd at its alias.
    PortTaken,
    /// The system's resolver knows its names, or was not asked yet.
    Known,
}

/// The aliases, by address and by host.
#[derive(Debug, Default)]
struct AliasTable {
    by_address: BTreeMap<Ipv4Addr, Alias>,
    by_host: HashMap<String, Ipv4Addr>,
}

/// The aliases and tunnels of one daemon.
#[derive(Debug)]
pub struct Tunnels {
    pub(super) parts: Parts,
    /// The current rules: those from the start or from the last reload.
    pub(super) policy: watch::Sender<Arc<TunnelPolicy>>,
    /// Whether there are any aliases. Separate from them because the hot path reads it.
    any: AtomicBool,
    aliases: RwLock<AliasTable>,
    table: Table,
    opening: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    /// Limits the dial-back requests of others that this daemon serves concurrently.
    pub(super) dialling_back: Arc<Semaphore>,
    /// Connections that this daemon expects from others.
    pub(super) rendezvous: Rendezvous,
    /// Which nodes need no tunnel.
    pub(super) reachable: Reachable,
    /// Paths that failed recently.
    paths: Mutex<Paths>,
    /// Dial-back requests that were received recently.
    pub(super) requests: Mutex<Requests>,
    /// Questions to other daemons.
    inquiries: Mutex<Inquiries>,
    /// Questions of other daemons that were answered recently.
    askers: Mutex<Askers>,
    warnings: Mutex<Vec<String>>,
    log: Arc<LimitedLog>,
    /// The version of the hosts in the files for Erlang nodes.
    pub(super) shown: watch::Sender<Option<u64>>,
    /// Notified when somebody waits for the files.
    pub(super) hurry: Notify,
    /// Whether the files are in use.
    pub(super) in_use: AtomicBool,
}

impl Tunnels {
    /// Creates the state without aliases and tunnels.
    pub(super) fn new(parts: Parts) -> Tunnels {
        Tunnels {
            policy: watch::Sender::new(Arc::new(parts.settings.policy.clone())),
            any: AtomicBool::new(false),
            aliases: RwLock::default(),
            table: Table::new(parts.descriptors.limit()),
            opening: Mutex::default(),
            dialling_back: Arc::new(Semaphore::new(OPENING)),
            rendezvous: Rendezvous::default(),
            reachable: Reachable::default(),
            paths: Mutex::default(),
            requests: Mutex::default(),
            inquiries: Mutex::default(),
            askers: Mutex::default(),
            warnings: Mutex::default(),
            log: LimitedLog::new(parts.dialer.runtime().clone(), Limits::REPETITIONS),
            shown: watch::Sender::new(None),
            hurry: Notify::new(),
            in_use: AtomicBool::new(false),
            parts,
        }
    }

    /// The settings of aliases and tunnels.
    pub fn settings(&self) -> &TunnelSettings {
        &self.parts.settings
    }

    /// Waits until the files for Erlang nodes contain all current hosts and, if `company` is expected, until there is
    /// at least one other host.
    ///
    /// A node reads the files when it starts, and only five seconds later again.
    pub async fn until_shown(&self, company: bool) {
        if !self.in_use.swap(true, Ordering::Relaxed) {
            // So far, they list no hosts.
            self.shown.send_replace(None);
        }
        let wanted = self.parts.directory.version();
        let mut shown = self.shown.subscribe();
        loop {
            let whole = *shown.borrow_and_update() >= Some(wanted);
            if whole && !(company && self.parts.directory.is_alone()) {
                return;
            }
            self.hurry.notify_one();
            // This cannot fail: `self` owns the sender.
            let _ = shown.changed().await;
        }
    }

    /// The current rules.
    pub fn policy(&self) -> Arc<TunnelPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Replaces the rules. They apply to new tunnels; existing ones are not affected.
    pub fn set_policy(&self, policy: TunnelPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// The open tunnels.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The current warnings, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the warnings.
    pub(super) fn set_warnings(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// All aliases and their hosts.
    pub fn aliases(&self) -> BTreeMap<Ipv4Addr, Alias> {
        self.alias_table().by_address.clone()
    }

    /// Replaces the aliases.
    pub(super) fn set_aliases(&self, aliases: BTreeMap<Ipv4Addr, Alias>) {
        let any = !aliases.is_empty();
        let by_host = aliases.iter().map(|(address, alias)| (alias.host.clone(), *address)).collect();
        let table = AliasTable { by_address: aliases, by_host };
        *self.aliases.write().unwrap_or_else(PoisonError::into_inner) = table;
        self.any.store(any, Ordering::Relaxed);
    }

    /// Whether there are any aliases. If not, the local address of a request does not matter.
    pub(super) fn any_alias(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The host of an alias, in lower case.
    pub(super) fn host_behind(&self, alias: IpAddr) -> Option<String> {
        let IpAddr::V4(alias) = alias else { return None };
        self.alias_table().by_address.get(&alias).map(|alias| alias.host.clone())
    }

    /// Whether the daemon's own sockets listen on all IPv4 addresses, and so on those of aliases and of nodes.
    pub(super) fn listens_everywhere(&self) -> bool {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.parts.listening.iter().any(|address| address.ip() == all)
    }

    /// Whether nodes reach all nodes of this host without tunnels.
    pub fn is_plain(&self, host: &str) -> bool {
        let origins = self.parts.directory.on_host(host);
        let is_plain = |origin: NodeId| self.reachable.is_plain(origin);
        rules::mode(&self.policy(), host) == Mode::WhenNeeded && origins.iter().any(|(id, _)| is_plain(*id))
    }

    /// The alias of a host.
    pub(super) fn alias_of(&self, host: &str) -> Option<Ipv4Addr> {
        self.alias_table().by_host.get(host).copied()
    }

    fn alias_table(&self) -> RwLockReadGuard<'_, AliasTable> {
        self.aliases.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the tunnels to one host that are opened concurrently. Each host has its own limit, so that a slow host
    /// does not delay tunnels to others.
    pub(super) fn opening_permits(&self, origin: NodeId) -> Arc<Semaphore> {
        let mut all = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Drop the semaphores that nobody uses.
        all.retain(|_, permits| Arc::strong_count(permits) > 1);
        Arc::clone(all.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(OPENING))))
    }

    /// The paths that failed recently.
    pub(super) fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The questions to other daemons.
    pub(super) fn inquiries(&self) -> MutexGuard<'_, Inquiries> {
        self.inquiries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The questions of other daemons.
    pub(super) fn askers(&self) -> MutexGuard<'_, Askers> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current registration of a target. Until it has arrived here, what its daemon has said when it was asked.
    pub(super) fn registered(&self, target: &Target) -> Option<Registered> {
        let Target { origin, kind, name, .. } = target;
        let arrived = self.parts.directory.registered(origin, *kind, name);
        let mut inquiries = self.inquiries();
        if arrived.is_some() {
            inquiries.arrived(*origin, name);
            return arrived;
        }
        inquiries.awaited(Monotonic::now().as_ms(), *origin, *kind, name)
    }

    /// A permit for one more connection.
    pub(super) fn permit(&self) -> Option<Permit> {
        Permit::take(&self.parts.descriptors)
    }

    /// Logs a warning, subject to the rate limit.
    pub(super) fn complain(&self, line: impl FnOnce() -> String) {
        let line = line();
        self.log.line(line.clone(), move |more| tracing::warn!("{line}{more}"));
    }
}
