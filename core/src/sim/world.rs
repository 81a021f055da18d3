//! The world: its hosts, its events, and what a test can do to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pmd_protocol::peer::codec::encode;
use pmd_protocol::peer::{Entry, Expulsion, Frame, Host, Metadata, NodeId, Service, Stamp};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest as _, Sha256};

use super::faults::Faults;
use super::heap::Heap;
use super::keys::SimKeys;
use super::network::{Daemon, HostState, Scope, SimNode, What};
use super::pool::Pool;
use super::traffic::Traffic;
use crate::attest::{Keys, id_of};
use crate::event::ClusterEvent;
use crate::membership::Identity;
use crate::membership::expulsions::Administrators;
use crate::node::{Alarm, Command, Node, Now, Purpose, Settings};
use crate::tuning::Tuning;

/// The initial time of the wall clock.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The address of the first host.
const FIRST_ADDRESS: u32 = 0x0a00_0001;

/// Simulated daemons, one on each host; see the module documentation.
#[derive(Debug)]
pub struct World {
    pub(super) now_ms: u64,
    pub(super) rng: ChaCha8Rng,
    /// The current faults.
    pub faults: Faults,
    pub(super) tuning: Tuning,
    /// The facts that daemons share.
    pub(super) pool: Pool,
    pub(super) keep_events: bool,
    pub(super) hosts: Vec<HostOf>,
    /// Pending events, each with its daemon and the boot number of that daemon.
    pub(super) heap: Heap<(usize, u64, What)>,
    pub(super) next_link: u64,
    pub(super) log: Sha256,
    /// The latest version that each origin ever had.
    pub(super) truth: BTreeMap<NodeId, Stamp>,
    pub(super) violations: Vec<String>,
    pub(super) alarms: Vec<(u64, usize, Alarm)>,
    pub(super) traffic: Traffic,
    pub(super) events: u64,
    /// The number of events since the time last advanced.
    pub(super) still: u64,
    /// The next origin to check.
    pub(super) turn: usize,
}

#[derive(Debug)]
pub(super) struct HostOf {
    pub(super) id: NodeId,
    keys: SimKeys,
    /// The name of the host in its handshakes.
    pub(super) name: String,
    seed: u64,
    pub(super) boots: u64,
    pub(super) state: HostState,
    /// What its daemon remembers across restarts.
    pub(super) decisions: Vec<Expulsion>,
    pub(super) daemon: Option<Box<Daemon>>,
}

impl World {
    /// A world without daemons.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_tuning(seed, Tuning::default())
    }

    /// A world whose daemons use these parameters.
    #[must_use]
    pub fn with_tuning(seed: u64, tuning: Tuning) -> Self {
        Self {
            now_ms: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            faults: Faults::default(),
            tuning,
            pool: Pool::default(),
            keep_events: true,
            hosts: Vec::new(),
            heap: Heap::new(),
            next_link: 1,
            log: Sha256::new(),
            truth: BTreeMap::new(),
            violations: Vec::new(),
            alarms: Vec::new(),
            traffic: Traffic::default(),
            events: 0,
            still: 0,
            turn: 0,
        }
    }

    /// Sets the parameters of the daemons that start from now on.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Starts a daemon on a new host, and returns the number of the host.
    pub fn start(&mut self) -> usize {
        let keys = SimKeys::new(&self.rng.random());
        let host = HostOf {
            id: id_of(&keys.public_key()),
            keys,
            name: format!("host{}", self.hosts.len()),
            seed: self.rng.random(),
            boots: 0,
            state: HostState::Vanished,
            decisions: Vec::new(),
            daemon: None,
        };
        self.hosts.push(host);
        self.restart(self.hosts.len() - 1, 0);
        self.hosts.len() - 1
    }

    /// Starts a daemon on a new host whose disk, including the key, is a copy of another's. Returns the number of the
    /// new host.
    pub fn start_copy_of(&mut self, number: usize) -> Option<usize> {
        let HostOf { id, keys, decisions, .. } = self.hosts.get(number)?;
        let (id, keys, decisions, seed) = (*id, keys.clone(), decisions.clone(), self.rng.random());
        let name = format!("host{}", self.hosts.len());
        let state = HostState::Vanished;
        self.hosts.push(HostOf { id, keys, name, seed, boots: 0, state, decisions, daemon: None });
        self.restart(self.hosts.len() - 1, 0);
        Some(self.hosts.len() - 1)
    }

    /// Resets all links of a host, as a firewall does after losing its state.
    pub fn reset(&mut self, number: usize) {
        let Some(daemon) = self.daemon(number) else { return };
        let (boot, links) = (daemon.boot, daemon.links.clone());
        for (link, end) in links {
            self.push(self.now_ms, number, boot, What::Gone { link, reason: None });
            self.push(self.now_ms, end.peer, end.peer_boot, What::Gone { link: end.peer_link, reason: None });
        }
    }

    /// Sends a message on all links of a host behind its daemon's back.
    pub fn inject(&mut self, number: usize, frame: &Frame) {
        let mut bytes = Vec::new();
        let Some(daemon) = self.daemon(number).filter(|_| encode(frame, &mut bytes).is_ok()) else { return };
        for end in daemon.links.clone().into_values() {
            let what = What::Bytes { link: end.peer_link, bytes: bytes.clone(), tries: 0 };
            self.push(self.now_ms.max(end.last_ms) + 1, end.peer, end.peer_boot, what);
        }
    }

    /// Restarts the daemon of a host, with its wall clock off by `skew_ms`.
    pub fn restart(&mut self, number: usize, skew_ms: i64) {
        let now = self.clock(skew_ms);
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.boots += 1;
        host.state = HostState::Up;
        let mut seed = ChaCha8Rng::seed_from_u64(host.seed.wrapping_add(host.boots));
        let Some(about) = self::host(number) else { return };
        let settings = Settings {
            keys: Arc::new(host.keys.clone()),
            seed: seed.random(),
            addresses: vec![address_of(number)],
            host: about,
            tuning: self.tuning.clone(),
            administrators: Administrators::default(),
            decisions: host.decisions.clone(),
        };
        let Ok(node) = Node::sharing(settings, now, self.pool.clone()) else { return };
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.daemon = Some(Box::new(Daemon {
            node,
            events: Vec::new(),
            boot: host.boots,
            links: BTreeMap::new(),
            met: BTreeSet::new(),
            frozen: false,
            waiting: VecDeque::new(),
            wake_ms: u64::MAX,
            noted: Stamp::default(),
            skew_ms,
        }));
        self.drain(number);
        self.check(number, Scope::Everything);
    }

    /// Lets a host call itself otherwise in its handshakes than in its entries.
    pub fn introduce_as(&mut self, number: usize, name: &str) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.name = name.to_owned();
        }
    }

    /// Makes one daemon dial another, as `pmd join` does.
    pub fn join(&mut self, from: usize, to: usize) {
        let Some(peer) = self.node(to).map(|node| node.identity().clone()) else { return };
        self.dial(from, &peer, Purpose::Link);
    }

    /// Kills a process. Its host resets its links and refuses dials.
    pub fn kill(&mut self, number: usize) {
        self.stop(number, HostState::Refuses);
    }

    /// Disconnects a host and its daemon from the network.
    pub fn vanish(&mut self, number: usize) {
        self.stop(number, HostState::Vanished);
    }

    /// Stops a process without killing it.
    pub fn freeze(&mut self, number: usize) {
        if let Some(daemon) = self.daemon(number) {
            daemon.frozen = true;
        }
    }

    /// Continues a frozen process. Pending events arrive after its timers have fired, as on a busy host.
    pub fn thaw(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let Some(daemon) = self.daemon(number) else { return };
        daemon.frozen = false;
        daemon.wake_ms = now_ms;
        let (boot, waiting) = (daemon.boot, std::mem::take(&mut daemon.waiting));
        self.push(now_ms, number, boot, What::Wake);
        for what in waiting {
            self.push(now_ms, number, boot, what);
        }
    }

    /// Sends a command to a daemon.
    pub fn command(&mut self, number: usize, command: Command) {
        self.with(number, |node, now| {
            // A daemon that is leaving rejects commands.
            let _ = node.handle_command(now, command);
        });
        self.check(number, Scope::Everything);
    }

    /// Makes a daemon ask its peers for summaries of their registries.
    pub fn request_summaries(&mut self, number: usize) {
        self.with(number, SimNode::request_summaries);
    }

    /// Registers a service.
    pub fn register(&mut self, number: usize, name: &str, port: u16) {
        if let Some(service) = service(name, port) {
            self.command(number, Command::Put(service));
        }
    }

    /// Expels the daemon of one host on another, or readmits it.
    pub fn decide(&mut self, number: usize, about: usize, expelled: bool) {
        let Some(HostOf { id, name, .. }) = self.hosts.get(about) else { return };
        let (member, host) = (*id, name.clone());
        self.command(number, Command::Decide { member, host, expelled });
    }

    /// Unregisters a service.
    pub fn unregister(&mut self, number: usize, name: &str) {
        if let Some(service) = service(name, 0) {
            self.command(number, Command::Remove(service));
        }
    }

    /// Runs the world for this duration.
    pub fn run_for(&mut self, duration_ms: u64) {
        let end = self.now_ms.saturating_add(duration_ms);
        while self.step(end) {}
        self.now_ms = end;
    }

    /// Runs the world until a condition holds, for at most `most_ms`, and returns whether it holds. The condition is
    /// checked every ten milliseconds.
    pub fn run_until(&mut self, most_ms: u64, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now_ms.saturating_add(most_ms);
        while !holds(self) {
            if self.now_ms >= end {
                return false;
            }
            self.run_for(10);
        }
        true
    }

    /// The time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A running daemon.
    #[must_use]
    pub fn node(&self, number: usize) -> Option<&SimNode> {
        Some(&self.hosts.get(number)?.daemon.as_ref()?.node)
    }

    /// The number of the host with this id, or the first of them if the key was copied.
    #[must_use]
    pub fn number_of(&self, id: &NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == *id)
    }

    /// All running daemons.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &SimNode)> {
        let running = self.hosts.iter().enumerate();
        running.filter_map(|(number, host)| Some((number, &host.daemon.as_ref()?.node)))
    }

    /// Whether all running daemons see each other and the same registry.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        let alive = self.nodes().count();
        let first = self.nodes().next().map(|(_, node)| node.replica().fingerprint());
        self.nodes()
            .all(|(_, node)| node.member_count() + 1 == alive && Some(node.replica().fingerprint()) == first)
    }

    /// The events that a running daemon has reported since its start, oldest first.
    #[must_use]
    pub fn events_of(&self, number: usize) -> &[ClusterEvent] {
        let daemon = self.hosts.get(number).and_then(|host| host.daemon.as_ref());
        daemon.map_or(&[], |daemon| &daemon.events)
    }

    /// Discards events, which would take gigabytes for thousands of daemons.
    pub fn discard_events(&mut self) {
        self.keep_events = false;
    }

    /// Violations of the invariants so far.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The alarms of all daemons, with the time and the daemon.
    #[must_use]
    pub fn alarms(&self) -> &[(u64, usize, Alarm)] {
        &self.alarms
    }

    /// The traffic so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The number of events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A hash of the whole history.
    #[must_use]
    pub fn log_hash(&self) -> [u8; 32] {
        self.log.clone().finalize().into()
    }

    pub(super) fn clock(&self, skew_ms: i64) -> Now {
        let wall_ms = EPOCH_MS.saturating_add(self.now_ms).saturating_add_signed(skew_ms);
        Now { mono_ms: self.now_ms, wall_ms }
    }

    pub(super) fn daemon(&mut self, number: usize) -> Option<&mut Daemon> {
        self.hosts.get_mut(number)?.daemon.as_deref_mut()
    }

    pub(super) fn push(&mut self, at_ms: u64, to: usize, boot: u64, what: What) {
        self.heap.push(at_ms.max(self.now_ms), (to, boot, what));
    }

    pub(super) fn latency(&mut self) -> u64 {
        let (least, most) = self.faults.latency_ms;
        self.rng.random_range(least..=most.max(least))
    }

    fn stop(&mut self, number: usize, state: HostState) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.state = state;
        let Some(daemon) = host.daemon.take() else { return };
        if state == HostState::Refuses {
            for end in daemon.links.values() {
                let at = self.now_ms + self.latency();
                self.push(at, end.peer, end.peer_boot, What::Gone { link: end.peer_link, reason: None });
            }
        }
    }
}

/// The address of a daemon.
fn address_of(number: usize) -> SocketAddr {
    let offset = u32::try_from(number).unwrap_or(0);
    (Ipv4Addr::from_bits(FIRST_ADDRESS.saturating_add(offset)), 4369).into()
}

/// The host with the address of a daemon.
pub(super) fn host_at(peer: &Identity) -> Option<usize> {
    let SocketAddr::V4(address) = peer.addresses.first()? else { return None };
    usize::try_from(address.ip().to_bits().checked_sub(FIRST_ADDRESS)?).ok()
}

/// A daemon's description of itself.
fn host(number: usize) -> Option<Host> {
    let host = format!("host{number}").parse().ok()?;
    Some(Host {
        host,
        version: "sim".to_owned(),
        metadata: Metadata::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    })
}

/// A service with this name.
fn service(name: &str, port: u16) -> Option<Entry> {
    let name = name.parse().ok()?;
    Some(Entry::Service(Service { name, instance: 0, port, registered_ms: 0, metadata: Default::default() }))
}
