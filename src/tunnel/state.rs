//! What all parts of the tunnels share: handles to the rest of the daemon, and what is open, known and allowed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::NodeId;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::dialback::Requests;
use super::path::Paths;
use super::rendezvous::Rendezvous;
use super::table::Table;
use crate::base::log::limited::LimitedLog;
use crate::base::permit::Permit;
use crate::base::shutdown::Shutdown;
use crate::base::stats::Counters;
use crate::cluster::core::Core;
use crate::config::tunnel::{TunnelPolicy, TunnelSettings};
use crate::directory::cluster::ClusterDirectory;
use crate::directory::local::Local;
use crate::link::dial::Dialer;
use crate::link::local_identity::LocalIdentity;
use crate::link::refusals::Refusals;

/// Tunnels to one host that are opened at the same moment: fewer than a daemon lets one address try at once.
const OPENING: usize = 32;

/// What tunnels need of the rest of the daemon.
#[derive(Debug)]
pub struct Parts {
    /// How they are set up.
    pub settings: TunnelSettings,
    /// The port that the daemon tells clients, and the one it listens on.
    pub ports: (i32, u16),
    /// The addresses that it listens on.
    pub listening: Vec<SocketAddr>,
    /// This daemon, as its peers know it.
    pub identity: Arc<LocalIdentity>,
    /// The core thread.
    pub core: Core,
    /// What is registered on this host.
    pub local: Arc<Local>,
    /// What is registered on other hosts.
    pub directory: Arc<ClusterDirectory>,
    /// Dials other daemons.
    pub dialer: Dialer,
    /// Counts tunnels.
    pub counters: Arc<Counters>,
    /// Counts connections and requests on the EPMD port, of which aliases are a part.
    pub epmd_counters: Arc<pmd_epmd::counters::Counters>,
    /// Remembers who was refused.
    pub refusals: Arc<Refusals>,
    /// Shares out the process's descriptors.
    pub descriptors: Arc<Descriptors>,
    /// Everything beside the EPMD port that holds what a successor needs: done before that port is free.
    pub holding: TaskTracker,
    /// The end of the daemon.
    pub shutdown: Shutdown,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The host, in lower case.
    pub host: String,
    /// Whether the host's name means this alias in the hosts file.
    pub listed: bool,
}

/// Aliases and tunnels of one daemon.
#[derive(Debug)]
pub struct Tunnels {
    pub(super) parts: Parts,
    /// The rules in force: those of the start, or of the last reload.
    pub(super) policy: watch::Sender<Arc<TunnelPolicy>>,
    /// Whether there is any alias: the hot path asks.
    any: AtomicBool,
    aliases: RwLock<BTreeMap<Ipv4Addr, Alias>>,
    table: Table,
    opening: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    /// Connections that this daemon opens because others have asked for them.
    pub(super) dialling_back: Arc<Semaphore>,
    /// Connections that this daemon has asked others for.
    pub(super) rendezvous: Rendezvous,
    /// Paths that did not work lately.
    paths: Mutex<Paths>,
    /// Requests to dial back that were seen lately.
    pub(super) requests: Mutex<Requests>,
    warnings: Mutex<Vec<String>>,
    log: Arc<LimitedLog>,
    /// The version of the hosts that the files for Erlang nodes show.
    pub(super) shown: watch::Sender<Option<u64>>,
    /// Somebody waits for the files.
    pub(super) hurry: Notify,
}

impl Tunnels {
    /// None yet.
    pub(super) fn new(parts: Parts) -> Tunnels {
        Tunnels {
            policy: watch::Sender::new(Arc::new(parts.settings.policy.clone())),
            any: AtomicBool::new(false),
            aliases: RwLock::default(),
            table: Table::new(parts.descriptors.limit()),
            opening: Mutex::default(),
            dialling_back: Arc::new(Semaphore::new(OPENING)),
            rendezvous: Rendezvous::default(),
            paths: Mutex::default(),
            requests: Mutex::default(),
            warnings: Mutex::default(),
            log: LimitedLog::new(parts.dialer.runtime().clone()),
            shown: watch::Sender::new(None),
            hurry: Notify::new(),
            parts,
        }
    }

    /// How they are set up.
    pub fn settings(&self) -> &TunnelSettings {
        &self.parts.settings
    }

    /// Waits until the files for Erlang nodes show all hosts that there are now; if `company` is expected, until there is a
    /// host.
    ///
    /// A node reads them when it starts and not again for five seconds.
    pub async fn until_shown(&self, company: bool) {
        let wanted = self.parts.directory.version();
        let mut shown = self.shown.subscribe();
        loop {
            let whole = *shown.borrow_and_update() >= Some(wanted);
            if whole && !(company && self.parts.directory.is_alone()) {
                return;
            }
            self.hurry.notify_one();
            // It cannot end: the sender lives as long as this.
            let _ = shown.changed().await;
        }
    }

    /// The rules in force.
    pub fn policy(&self) -> Arc<TunnelPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Applies other rules to new tunnels; existing ones are not affected.
    pub fn set_policy(&self, policy: TunnelPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// The open tunnels.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What is wrong, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the warnings.
    pub(super) fn set_warnings(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// Which alias stands for which host.
    pub fn aliases(&self) -> BTreeMap<Ipv4Addr, Alias> {
        self.aliases.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the aliases.
    pub(super) fn set_aliases(&self, aliases: BTreeMap<Ipv4Addr, Alias>) {
        let any = !aliases.is_empty();
        *self.aliases.write().unwrap_or_else(PoisonError::into_inner) = aliases;
        self.any.store(any, Ordering::Relaxed);
    }

    /// Whether there is any alias, so that it matters at which address this daemon was asked.
    pub(super) fn any_alias(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The host, in lower case, that an alias stands for.
    pub(super) fn host_behind(&self, alias: IpAddr) -> Option<String> {
        let IpAddr::V4(alias) = alias else { return None };
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        aliases.get(&alias).map(|alias| alias.host.clone())
    }

    /// The alias of a host.
    pub(super) fn alias_of(&self, host: &str) -> Option<Ipv4Addr> {
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        aliases.iter().find(|(_, alias)| alias.host == host).map(|(address, _)| *address)
    }

    /// Where to wait for a turn to reach a host: apart from all other hosts, which may be slow to answer.
    pub(super) fn turns(&self, origin: NodeId) -> Arc<Semaphore> {
        let mut all = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for or has a turn from.
        all.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(all.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(OPENING))))
    }

    /// Paths that did not work lately.
    pub(super) fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for one more connection.
    pub(super) fn permit(&self) -> Option<Permit> {
        Permit::take(&self.parts.descriptors)
    }

    /// Writes a log line about a tunnel that could not be opened, subject to the rate limit.
    pub(super) fn complain(&self, line: impl FnOnce() -> String) {
        let line = line();
        self.log.warn(line.clone(), move |more| tracing::warn!("{line}{more}"));
    }
}
