//! Other hosts as loopback addresses, and the way to their nodes.
//!
//! ```text
//!   node ──▶ 127.77.x.y:4369   "where is bar?"    answered here, for the host that the alias stands for
//!   node ──▶ 127.77.x.y:PORT ─▶ entry ══ TLS, pmd-tunnel/1 ══▶ exit ──▶ 127.0.0.1:PORT of bar, on its host
//! ```
//!
//! [`alias`], [`hosts`] and [`rules`] decide, without sockets or files. [`keeper`] follows the cluster and keeps the files
//! for Erlang nodes; [`entry`] listens on the aliases, [`carry`] takes a connection to its host, [`exit`] to its node, and
//! [`pipe`] moves the bytes; [`greeting`] asks a node whether it is there. [`table`] knows what is open. [`path`] chooses the way to a host, and [`relay`] makes those that are not
//! direct; [`requests`] decides what becomes of what others ask for. Names, cookie and TLS of the nodes stay theirs, end to end.

pub mod aliases;
pub mod connect;
pub mod dialback;
pub mod entry;
pub mod exit;
pub mod hosts_file;
pub mod path;
pub mod pipe;
pub mod probe;
pub mod reachability;
pub mod relay;
pub mod rendezvous;
pub mod responder;
pub mod rules;
pub mod sync;
pub mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use pmd_protocol::peer::{Kind, NodeId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use crate::base::log::repeats::Complaints;
use crate::cluster::driver::Core;
use crate::config::rules::Mode;
use crate::config::tunnel::{TunnelPolicy, TunnelSettings};
use crate::daemon::Context;
use crate::directory::cluster::ClusterDirectory;
use crate::link::dial::Dialer;
use crate::link::local_identity::Me;
use dialback::Requests;
use entry::{Entries, Target};
use path::Paths;
use rendezvous::Waiting;
use table::Table;

/// Tunnels to one host that are made at the same moment: fewer than a daemon lets one address try at once.
const OPENING: usize = 32;
/// Names that one look at a host makes entries for.
const LISTED: usize = 256;
/// Where the port is in a PORT2_RESP: behind its opcode and its result.
const PORT_IN_REPLY: std::ops::Range<usize> = 2..4;

/// Aliases and tunnels of one daemon.
#[derive(Debug)]
pub struct Tunnels {
    context: Arc<Context>,
    settings: TunnelSettings,
    /// The rules in force: those of the start, or of the last reload.
    policy: watch::Sender<Arc<TunnelPolicy>>,
    me: Arc<Me>,
    core: Core,
    directory: Arc<ClusterDirectory>,
    dialer: Dialer,
    runtime: Handle,
    /// Whether there is any alias: the hot path asks.
    any: AtomicBool,
    names: RwLock<BTreeMap<Ipv4Addr, Alias>>,
    entries: Mutex<Entries>,
    table: Table,
    opening: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    /// Connections that this daemon makes because others have asked for them.
    dialling_back: Arc<Semaphore>,
    /// Connections that this daemon has asked others for.
    waiting: Waiting,
    /// Which ways did not work lately.
    paths: Mutex<Paths>,
    /// Requests to dial that were seen lately.
    requests: Mutex<Requests>,
    /// What the times of these are counted from.
    begun: Instant,
    warnings: Mutex<Vec<String>>,
    complaints: Arc<Complaints>,
    /// The version of the hosts that the files for Erlang nodes show.
    shown: watch::Sender<Option<u64>>,
    /// Somebody waits for the files.
    hurry: Notify,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The host, in lower case.
    pub host: String,
    /// Whether the host's name means this alias in the hosts file.
    pub listed: bool,
}

/// What tunnels need of the rest of the daemon.
#[derive(Debug)]
pub struct Parts {
    /// The daemon.
    pub context: Arc<Context>,
    /// How they are set up.
    pub settings: TunnelSettings,
    /// What this daemon is to others.
    pub me: Arc<Me>,
    /// Who knows the members.
    pub core: Core,
    /// What is registered on other hosts.
    pub directory: Arc<ClusterDirectory>,
    /// Reaches other daemons.
    pub dialer: Dialer,
    /// Where connections are served.
    pub runtime: Handle,
}

impl Tunnels {
    /// Starts to follow the cluster.
    pub fn start(parts: Parts) -> Arc<Tunnels> {
        let Parts { context, settings, me, core, directory, dialer, runtime } = parts;
        let policy = watch::Sender::new(Arc::new(settings.policy.clone()));
        let table = Table::new(context.descriptors.limit());
        let complaints = Complaints::new(runtime.clone());
        let tunnels = Arc::new(Tunnels {
            context,
            settings,
            policy,
            me,
            core,
            directory,
            dialer,
            runtime,
            any: AtomicBool::new(false),
            names: RwLock::default(),
            entries: Mutex::default(),
            table,
            opening: Mutex::default(),
            dialling_back: Arc::new(Semaphore::new(OPENING)),
            waiting: Waiting::default(),
            paths: Mutex::default(),
            requests: Mutex::default(),
            begun: Instant::now(),
            warnings: Mutex::default(),
            complaints,
            shown: watch::Sender::new(None),
            hurry: Notify::new(),
        });
        tunnels.runtime.spawn(sync::keep(Arc::clone(&tunnels)));
        tunnels.runtime.spawn(exit::watch_registrations(Arc::clone(&tunnels)));
        tunnels
    }

    /// How they are set up.
    pub fn settings(&self) -> &TunnelSettings {
        &self.settings
    }

    /// Waits until the files for Erlang nodes show all hosts that there are now; if `company` is expected, until there is a host.
    ///
    /// A node reads them when it starts and does not look again for five seconds.
    pub async fn until_shown(&self, company: bool) {
        let wanted = self.directory.version();
        let mut shown = self.shown.subscribe();
        loop {
            let whole = *shown.borrow_and_update() >= Some(wanted);
            if whole && !(company && self.directory.is_alone()) {
                return;
            }
            self.hurry.notify_one();
            // It cannot end: the sender is there as long as this is.
            let _ = shown.changed().await;
        }
    }

    /// The rules in force.
    pub fn policy(&self) -> Arc<TunnelPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Puts other rules into force, for tunnels that are opened from now on.
    pub fn set_policy(&self, policy: TunnelPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// What is open.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What is wrong, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which alias stands for which host.
    pub fn aliases(&self) -> BTreeMap<Ipv4Addr, Alias> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Listening sockets of entries.
    pub fn entries(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is any alias, so that it matters at which address this daemon was asked.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The alias that was asked, if this address is one.
    pub fn alias(&self, asked: IpAddr) -> Option<Ipv4Addr> {
        match asked.to_canonical() {
            IpAddr::V4(address) if self.settings.range.contains(address) => Some(address),
            _ => None,
        }
    }

    /// Appends the PORT2_RESP for `name` on the host behind an alias; false if there is no such node.
    pub fn answer_at(self: &Arc<Self>, alias: Ipv4Addr, name: &str, out: &mut Vec<u8>) -> bool {
        let Some(host) = self.host_behind(alias) else { return false };
        // The whole name may be asked for as well.
        let name = match name.rsplit_once('@') {
            Some((name, asked)) if crate::directory::cluster::same_host(asked, &host) => name,
            _ => name,
        };
        self.answer_with_entry(alias.into(), name, &host, out)
    }

    /// Appends the PORT2_RESP for `name` on another host, with a port that leads there from the address that was asked;
    /// false if there is no such node, or no way to it from there.
    pub fn answer_on(self: &Arc<Self>, asked: IpAddr, name: &str, host: &str, out: &mut Vec<u8>) -> bool {
        let Some(whole) = self.directory.whole_name(host) else { return false };
        if rules::mode(&self.policy(), &whole) == Mode::Never {
            return self.directory.answer(name, &whole, out);
        }
        // An entry on any other address would let the network in.
        let asked = asked.to_canonical();
        asked.is_loopback() && self.answer_with_entry(asked, name, &whole, out)
    }

    fn answer_with_entry(
        self: &Arc<Self>,
        address: IpAddr,
        name: &str,
        host: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some((origin, registered)) = self.directory.find(name, host) else { return false };
        let target = Target { origin, kind: Kind::NAME, name: name.into() };
        let Some(port) = self.entry(address, target, registered) else { return false };
        let start = out.len();
        if !self.directory.answer(name, host, out) {
            return false;
        }
        if let Some(in_reply) = out.get_mut(start..).and_then(|reply| reply.get_mut(PORT_IN_REPLY)) {
            in_reply.copy_from_slice(&port.to_be_bytes());
        }
        true
    }

    /// The whole answer to NAMES_REQ at an alias.
    pub fn names_at(self: &Arc<Self>, alias: Ipv4Addr) -> Arc<[u8]> {
        let mut answer = self.context.settings.port.to_be_bytes().to_vec();
        let names = self.host_behind(alias).map(|host| self.directory.names_on(&host)).unwrap_or_default();
        for (name, (origin, registered)) in names.into_iter().take(LISTED) {
            let target = Target { origin, kind: Kind::NAME, name: name.clone() };
            if let Some(port) = self.entry(alias.into(), target, registered) {
                answer.extend_from_slice(format!("name {name} at port {port}\n").as_bytes());
            }
        }
        answer.into()
    }

    /// Where a program on this host connects to something that `origin` has registered.
    pub fn entry_for(
        self: &Arc<Self>,
        origin: NodeId,
        kind: Kind,
        name: &str,
    ) -> Option<std::net::SocketAddr> {
        let registered = self.directory.registered(&origin, kind, name)?;
        let host = self.directory.host_of(&origin)?;
        if rules::mode(&self.policy(), &host) == Mode::Never {
            let address = self.directory.addresses_of(&origin).first().copied()?;
            return Some((address, registered.port).into());
        }
        let alias = {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            *names.iter().find(|(_, alias)| alias.host == host)?.0
        };
        let target = Target { origin, kind, name: name.into() };
        let port = self.entry(alias.into(), target, registered)?;
        Some((alias, port).into())
    }

    /// Where one waits for one's turn to reach a host: apart from all other hosts, which may be slow to answer.
    fn turns(&self, origin: NodeId) -> Arc<Semaphore> {
        let mut all = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for or has a turn from.
        all.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(all.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(OPENING))))
    }

    fn paths(&self) -> std::sync::MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_behind(&self, alias: Ipv4Addr) -> Option<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&alias).map(|alias| alias.host.clone())
    }

    fn set_aliases(&self, names: BTreeMap<Ipv4Addr, Alias>) {
        let any = !names.is_empty();
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        self.any.store(any, Ordering::Relaxed);
    }

    /// Writes a log line about a tunnel that did not come about, unless there were too many.
    fn complain(&self, line: impl FnOnce() -> String) {
        let line = line();
        self.complaints.say(line.clone(), move |more| tracing::warn!("{line}{more}"));
    }
}
