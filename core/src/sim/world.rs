//! The event heap and the hosts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pmd_protocol::limits::{FRAME_FIXED, MAX_FRAME};
use pmd_protocol::peer::codec::{Decoded, Phase, decode, encode};
use pmd_protocol::peer::frame::Sight;
use pmd_protocol::peer::{Entry, Frame, Host, NodeId, Service, Stamp};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest as _, Sha256};

use super::faults::Faults;
use super::network::{Daemon, End, HostState, What};
use crate::id::Digest;
use crate::membership::Identity;
use crate::node::{Alarm, Command, LinkEvent, LinkId, Node, Now, Output, Purpose, Settings};
use crate::tuning::Tuning;

/// Bytes that may be under way on a link: what a socket's buffers hold.
const WINDOW: usize = 128 * 1024;
/// After how many retransmissions a transport gives up, and how long each takes.
const RETRIES: u32 = 15;
const RETRY_MS: u64 = 200;
/// How long a dial that nobody answers takes.
const DIAL_TIMEOUT_MS: u64 = 1_000;
/// Events in one millisecond beyond which something must be going round in circles.
const MOST_AT_ONCE: u64 = 1_000_000;
/// The wall clock at the beginning.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Simulated daemons, one to a host. See the module.
#[derive(Debug)]
pub struct World {
    now_ms: u64,
    rng: ChaCha8Rng,
    /// The faults of the moment.
    pub faults: Faults,
    tuning: Tuning,
    hosts: Vec<HostOf>,
    numbers: BTreeMap<NodeId, usize>,
    heap: BTreeMap<(u64, u64), (usize, u64, What)>,
    next_event: u64,
    next_link: u64,
    log: Sha256,
    /// The furthest that each origin ever was.
    truth: BTreeMap<NodeId, Stamp>,
    violations: Vec<String>,
    alarms: Vec<(u64, usize, Alarm)>,
    bytes: u64,
    events: u64,
    /// Events since time has moved.
    still: u64,
}

#[derive(Debug)]
struct HostOf {
    id: NodeId,
    seed: u64,
    boots: u64,
    state: HostState,
    daemon: Option<Box<Daemon>>,
}

impl World {
    /// A world without daemons.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now_ms: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            faults: Faults::default(),
            tuning: Tuning::default(),
            hosts: Vec::new(),
            numbers: BTreeMap::new(),
            heap: BTreeMap::new(),
            next_event: 0,
            next_link: 1,
            log: Sha256::new(),
            truth: BTreeMap::new(),
            violations: Vec::new(),
            alarms: Vec::new(),
            bytes: 0,
            events: 0,
            still: 0,
        }
    }

    /// Starts a daemon on a new host; the host's number.
    pub fn start(&mut self) -> usize {
        let host = HostOf {
            id: NodeId::new(self.rng.random()),
            seed: self.rng.random(),
            boots: 0,
            state: HostState::Vanished,
            daemon: None,
        };
        self.numbers.insert(host.id, self.hosts.len());
        self.hosts.push(host);
        self.restart(self.hosts.len() - 1, 0);
        self.hosts.len() - 1
    }

    /// Starts the daemon of a host again, with its wall clock off by `skew_ms`.
    pub fn restart(&mut self, number: usize, skew_ms: i64) {
        let now = self.clock(skew_ms);
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.boots += 1;
        host.state = HostState::Up;
        let mut seed = ChaCha8Rng::seed_from_u64(host.seed.wrapping_add(host.boots));
        let address =
            std::net::Ipv4Addr::from_bits(0x0a00_0001_u32.saturating_add(u32::try_from(number).unwrap_or(0)));
        let Ok(name) = format!("host{number}").parse() else { return };
        let settings = Settings {
            id: host.id,
            seed: seed.random(),
            addresses: vec![(address, 4369).into()],
            host: Host {
                host: name,
                version: "sim".to_owned(),
                metadata: Default::default(),
                leaving: false,
            },
            tuning: self.tuning.clone(),
        };
        let Ok(node) = Node::new(settings, now) else { return };
        host.daemon = Some(Box::new(Daemon {
            node,
            boot: host.boots,
            links: BTreeMap::new(),
            frozen: false,
            waiting: VecDeque::new(),
            wake_ms: u64::MAX,
            skew_ms,
        }));
        self.drain(number);
        self.check(number, Scope::Everything);
    }

    /// Has one daemon dial another, as `pmd join` does.
    pub fn join(&mut self, from: usize, to: usize) {
        let Some(peer) = self.node(to).map(|node| node.identity().clone()) else { return };
        self.dial(from, &peer, Purpose::Link);
    }

    /// Kills a process. Its host says so to whoever talks to it.
    pub fn kill(&mut self, number: usize) {
        self.stop(number, HostState::Refuses);
    }

    /// Takes a host off the network, with its daemon.
    pub fn vanish(&mut self, number: usize) {
        self.stop(number, HostState::Vanished);
    }

    /// Stops a process without killing it.
    pub fn freeze(&mut self, number: usize) {
        if let Some(daemon) = self.daemon(number) {
            daemon.frozen = true;
        }
    }

    /// Lets it run again. What waited for it arrives after its timers have run, as on a busy host.
    pub fn thaw(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let Some(daemon) = self.daemon(number) else { return };
        daemon.frozen = false;
        let (boot, waiting) = (daemon.boot, std::mem::take(&mut daemon.waiting));
        self.push(now_ms, number, boot, What::Wake);
        for what in waiting {
            self.push(now_ms, number, boot, what);
        }
    }

    /// Has a daemon do what a local user wants.
    pub fn command(&mut self, number: usize, command: Command) {
        self.with(number, |node, now| {
            // A daemon that is leaving refuses, as it should.
            let _ = node.handle_command(now, command);
        });
        self.check(number, Scope::Everything);
    }

    /// Registers a service.
    pub fn register(&mut self, number: usize, name: &str, port: u16) {
        if let Some(service) = service(name, port) {
            self.command(number, Command::Put(service));
        }
    }

    /// Ends it.
    pub fn unregister(&mut self, number: usize, name: &str) {
        if let Some(service) = service(name, 0) {
            self.command(number, Command::Remove(service));
        }
    }

    /// Runs for this long.
    pub fn run_for(&mut self, duration_ms: u64) {
        let end = self.now_ms.saturating_add(duration_ms);
        while self.step(end) {}
        self.now_ms = end;
    }

    /// Runs until something holds, at most for this long. Whether it does. It is looked at every ten milliseconds.
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

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A running daemon.
    #[must_use]
    pub fn node(&self, number: usize) -> Option<&Node> {
        Some(&self.hosts.get(number)?.daemon.as_ref()?.node)
    }

    /// All running daemons.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        let daemon = |(number, host): (usize, &'_ HostOf)| host.daemon.as_ref().map(|_| number);
        self.hosts
            .iter()
            .enumerate()
            .filter_map(daemon)
            .filter_map(|number| Some((number, self.node(number)?)))
    }

    /// Whether all running daemons see each other and the same registry.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        let alive = self.nodes().count();
        let mut fingerprints: BTreeSet<Digest> = BTreeSet::new();
        self.nodes().all(|(_, node)| {
            fingerprints.insert(node.registry().fingerprint());
            node.members().count() + 1 == alive && fingerprints.len() == 1
        })
    }

    /// What must not have happened and has.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The alarms of all daemons: when, whose, what.
    #[must_use]
    pub fn alarms(&self) -> &[(u64, usize, Alarm)] {
        &self.alarms
    }

    /// Bytes that were sent on links so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Events that were handled so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A hash over all that has happened.
    #[must_use]
    pub fn log_hash(&self) -> [u8; 32] {
        self.log.clone().finalize().into()
    }

    fn clock(&self, skew_ms: i64) -> Now {
        let wall_ms = EPOCH_MS.saturating_add(self.now_ms).saturating_add_signed(skew_ms);
        Now { mono_ms: self.now_ms, wall_ms }
    }

    fn daemon(&mut self, number: usize) -> Option<&mut Daemon> {
        self.hosts.get_mut(number)?.daemon.as_deref_mut()
    }

    fn push(&mut self, at_ms: u64, to: usize, boot: u64, what: What) {
        self.heap.insert((at_ms.max(self.now_ms), self.next_event), (to, boot, what));
        self.next_event += 1;
    }

    fn latency(&mut self) -> u64 {
        let (least, most) = self.faults.latency_ms;
        self.rng.random_range(least..=most.max(least))
    }

    fn boot_of(&self, number: usize) -> u64 {
        self.hosts.get(number).map_or(0, |host| host.boots)
    }

    fn number_of(&self, id: &NodeId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    fn stop(&mut self, number: usize, state: HostState) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.state = state;
        let Some(daemon) = host.daemon.take() else { return };
        if state == HostState::Refuses {
            for end in daemon.links.values() {
                let at = self.now_ms + self.latency();
                self.push(at, end.peer, end.peer_boot, What::Gone { link: end.peer_link, farewell: None });
            }
        }
    }

    /// Handles the next event, if there is one until `end`.
    fn step(&mut self, end: u64) -> bool {
        let Some(entry) = self.heap.first_entry().filter(|entry| entry.key().0 <= end) else { return false };
        self.still = if entry.key().0 == self.now_ms { self.still + 1 } else { 0 };
        if self.still > MOST_AT_ONCE {
            self.violations.push(format!("{} ms: time stands still, next is {:?}", self.now_ms, entry.get()));
            self.heap.clear();
            return false;
        }
        self.now_ms = entry.key().0;
        let (number, boot, what) = entry.remove();
        let dialled = matches!(what, What::Dialled { .. });
        let Some(daemon) = self.daemon(number).filter(|daemon| daemon.boot == boot || dialled) else {
            self.nobody(number, &what);
            return true;
        };
        if daemon.frozen {
            if !matches!(what, What::Wake) {
                daemon.waiting.push_back(what);
            }
            return true;
        }
        self.events += 1;
        self.log.update(self.now_ms.to_be_bytes());
        self.log.update(u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
        let scope = Scope::of(&what);
        self.happen(number, boot, what);
        self.drain(number);
        self.check(number, scope);
        true
    }

    /// An event for a daemon that is not there any more.
    fn nobody(&mut self, number: usize, what: &What) {
        let state = self.hosts.get(number).map_or(HostState::Vanished, |host| host.state);
        if let What::Dialled { from, from_boot, purpose, .. } = *what {
            let Some(id) = self.hosts.get(number).map(|host| host.id) else { return };
            let peer = Identity::new(id, Default::default(), &[]);
            let (after, sight) = match state {
                HostState::Refuses => (self.latency(), Sight::Refused),
                HostState::Up | HostState::Vanished => (self.patience(purpose), Sight::Silent),
            };
            self.push(self.now_ms + after, from, from_boot, What::NoAnswer { peer, purpose, sight });
        }
    }

    fn happen(&mut self, number: usize, boot: u64, what: What) {
        match what {
            What::Wake => {
                if let Some(daemon) = self.daemon(number) {
                    daemon.wake_ms = u64::MAX;
                }
                self.with(number, |node, now| {
                    if node.poll_timeout() <= now.mono_ms {
                        node.handle_timeout(now);
                    }
                });
            }
            What::Bytes { link, bytes, tries } => self.arrive(number, boot, link, bytes, tries),
            What::Read { link, bytes } => {
                if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get_mut(&link)) {
                    end.unread = end.unread.saturating_sub(bytes);
                }
            }
            What::Gone { link, farewell } => {
                if self.daemon(number).and_then(|daemon| daemon.links.remove(&link)).is_some() {
                    self.with(number, |node, now| node.handle_link(now, LinkEvent::Down { link, farewell }));
                }
            }
            What::Dialled { from, from_boot, caller, purpose } => {
                self.accept(number, from, from_boot, caller, purpose);
            }
            What::Answered { from, from_boot, peer_link, peer, purpose } => {
                self.answered(number, (from, from_boot), peer_link, peer, purpose);
            }
            What::NoAnswer { peer, purpose, sight } => {
                let event = match purpose {
                    Purpose::Link => LinkEvent::Failed { peer: peer.id },
                    Purpose::Probe(token) => LinkEvent::Probed { token, sight },
                };
                self.with(number, |node, now| node.handle_link(now, event));
            }
            What::Packet { frame } => self.with(number, |node, now| node.handle_packet(now, frame)),
        }
    }

    fn arrive(&mut self, number: usize, boot: u64, link: LinkId, bytes: Vec<u8>, tries: u32) {
        let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get(&link).cloned()) else {
            return;
        };
        if self.faults.blocks(end.peer, number) {
            // The transport tries again, and gives up in the end; the other side learns that by itself.
            if tries >= RETRIES {
                self.happen(number, boot, What::Gone { link, farewell: None });
                let gone = What::Gone { link: end.peer_link, farewell: None };
                self.push(self.now_ms + RETRY_MS, end.peer, end.peer_boot, gone);
            } else {
                self.push(
                    self.now_ms + RETRY_MS,
                    number,
                    boot,
                    What::Bytes { link, bytes, tries: tries + 1 },
                );
            }
            return;
        }
        self.log.update(&bytes);
        let back = self.now_ms + self.latency();
        self.push(back, end.peer, end.peer_boot, What::Read { link: end.peer_link, bytes: bytes.len() });
        match decode(&bytes, Phase::Proven) {
            Ok(Some((Decoded::Frame(frame), _))) => {
                self.with(number, |node, now| node.handle_frame(now, link, frame));
            }
            other => self.violations.push(format!("a frame that cannot be read: {other:?}")),
        }
    }

    fn dial(&mut self, from: usize, peer: &Identity, purpose: Purpose) {
        let Some(caller) = self.node(from).map(|node| node.identity().clone()) else { return };
        let from_boot = self.boot_of(from);
        let failed = What::NoAnswer { peer: peer.clone(), purpose, sight: Sight::Silent };
        let to = self.number_of(&peer.id);
        match to.filter(|to| !self.faults.blocks(from, *to) && !self.faults.blocks(*to, from)) {
            Some(to) => {
                // Connection, handshake and proof: three round trips.
                let at = self.now_ms + 5 * self.latency();
                let boot = self.boot_of(to);
                self.push(at, to, boot, What::Dialled { from, from_boot, caller, purpose });
            }
            None => self.push(self.now_ms + self.patience(purpose), from, from_boot, failed),
        }
    }

    fn accept(&mut self, number: usize, from: usize, from_boot: u64, caller: Identity, purpose: Purpose) {
        let Some(peer) = self.node(number).map(|node| node.identity().clone()) else { return };
        let link = match purpose {
            Purpose::Link => Some(self.new_link()),
            Purpose::Probe(_) => None,
        };
        let boot = self.boot_of(number);
        let at = self.now_ms + self.latency();
        let answer = What::Answered { from: number, from_boot: boot, peer_link: link, peer, purpose };
        self.push(at, from, from_boot, answer);
        if let Some(link) = link {
            // The other end's number follows from this one's: they are made in pairs.
            let peer_link = LinkId(link.0 + 1);
            let end = End { peer: from, peer_boot: from_boot, peer_link, unread: 0, last_ms: at };
            if let Some(daemon) = self.daemon(number) {
                daemon.links.insert(link, end);
            }
            let up = LinkEvent::Up { link, peer: caller, initiated: false };
            self.with(number, |node, now| node.handle_link(now, up));
        }
    }

    fn answered(
        &mut self,
        number: usize,
        (from, from_boot): (usize, u64),
        peer_link: Option<LinkId>,
        peer: Identity,
        purpose: Purpose,
    ) {
        let event = match (purpose, peer_link) {
            (Purpose::Probe(token), _) => LinkEvent::Probed { token, sight: Sight::Reached },
            (Purpose::Link, None) => LinkEvent::Failed { peer: peer.id },
            (Purpose::Link, Some(peer_link)) => {
                let link = LinkId(peer_link.0 + 1);
                let end = End { peer: from, peer_boot: from_boot, peer_link, unread: 0, last_ms: 0 };
                if let Some(daemon) = self.daemon(number) {
                    daemon.links.insert(link, end);
                }
                LinkEvent::Up { link, peer, initiated: true }
            }
        };
        self.with(number, |node, now| node.handle_link(now, event));
    }

    /// How long somebody who dials waits for an answer.
    fn patience(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Link => DIAL_TIMEOUT_MS,
            Purpose::Probe(_) => self.tuning.membership.probe_rtt_ms,
        }
    }

    fn new_link(&mut self) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 2;
        link
    }

    fn with(&mut self, number: usize, act: impl FnOnce(&mut Node, Now)) {
        let Some(skew) = self.daemon(number).map(|daemon| daemon.skew_ms) else { return };
        let now = self.clock(skew);
        if let Some(daemon) = self.daemon(number) {
            act(&mut daemon.node, now);
        }
        self.drain(number);
    }

    /// What the driver of a node does after each call.
    fn drain(&mut self, number: usize) {
        while let Some(output) = self.daemon(number).and_then(|daemon| daemon.node.poll_output()) {
            match output {
                Output::Dial { peer, purpose } => self.dial(number, &peer, purpose),
                Output::Close { link, reason } => {
                    if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.remove(&link)) {
                        let at = end.last_ms.max(self.now_ms + self.latency());
                        let gone = What::Gone { link: end.peer_link, farewell: Some(reason) };
                        self.push(at, end.peer, end.peer_boot, gone);
                    }
                }
                Output::Packet { to, frame } => self.packet(number, &to, frame),
                Output::Alarm(alarm) => self.alarms.push((self.now_ms, number, alarm)),
                Output::Patch(_) | Output::Event(_) | Output::Left => {}
            }
        }
        self.transmit(number);
        let Some(daemon) = self.daemon(number) else { return };
        let due = daemon.node.poll_timeout();
        if due < daemon.wake_ms {
            daemon.wake_ms = due;
            let boot = daemon.boot;
            self.push(due, number, boot, What::Wake);
        }
    }

    fn transmit(&mut self, number: usize) {
        let links: Vec<_> = match self.daemon(number) {
            Some(daemon) => daemon.links.keys().copied().collect(),
            None => return,
        };
        for link in links {
            loop {
                let Some(daemon) = self.daemon(number) else { return };
                let Some(end) = daemon.links.get(&link).filter(|end| end.unread < WINDOW).cloned() else {
                    break;
                };
                let Some(frame) = daemon.node.poll_transmit(link, MAX_FRAME - FRAME_FIXED) else { break };
                let mut bytes = Vec::new();
                if encode(&frame, &mut bytes).is_err() {
                    self.violations.push(format!("a frame that is too long: {frame:?}"));
                    continue;
                }
                self.carry(number, link, &end, bytes);
            }
        }
    }

    fn carry(&mut self, number: usize, link: LinkId, end: &End, bytes: Vec<u8>) {
        let mut at = self.now_ms + self.latency();
        if self.rng.random_range(0..1_000) < self.faults.loss_permille {
            at += RETRY_MS;
        }
        at = at.max(end.last_ms);
        if let Some((reader, pause)) = self.faults.slow_reader.filter(|(reader, _)| *reader == end.peer) {
            at = at.max(end.last_ms + pause);
            debug_assert_eq!(reader, end.peer);
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get_mut(&link)) {
            end.unread += bytes.len();
            end.last_ms = at;
        }
        self.push(at, end.peer, end.peer_boot, What::Bytes { link: end.peer_link, bytes, tries: 0 });
    }

    fn packet(&mut self, from: usize, to: &Identity, frame: Frame) {
        let Some(number) = self.number_of(&to.id) else { return };
        let lost = self.rng.random_range(0..1_000) < self.faults.loss_permille;
        if lost || self.faults.blocks(from, number) || self.faults.blocks(number, from) {
            return;
        }
        // A pooled connection has to be made now and then.
        let at = self.now_ms + 3 * self.latency();
        self.push(at, number, self.boot_of(number), What::Packet { frame });
    }

    /// What must hold after each event, for the daemon that it touched.
    fn check(&mut self, number: usize, scope: Scope) {
        let Some(daemon) = self.hosts.get(number).and_then(|host| host.daemon.as_ref()) else { return };
        let node = &daemon.node;
        let me = node.identity().id;
        let own = node.registry().store().stamp(&me).unwrap_or_default();
        let truth = self.truth.entry(me).or_default();
        *truth = own.max(*truth);
        let contents = node.registry().store();
        let one = match scope {
            Scope::Nothing => return,
            Scope::Origin(id) => contents.content(&id).map(|content| (id, content)),
            Scope::Everything => None,
        };
        let all = contents.iter().skip(1).filter(|_| scope == Scope::Everything);
        for (id, content) in one.into_iter().chain(all).filter(|(id, _)| *id != me) {
            let stamp = content.stamp();
            // Nobody knows more of an origin than it has ever done.
            if self.truth.get(&id).is_none_or(|truth| stamp > *truth) {
                let what = format!("{} ms: {number} has {stamp:?} of {id:?}, which never was", self.now_ms);
                self.violations.push(what);
            }
            // Visible is only what the membership has alive in the life that wrote it.
            if node.registry().directory().is_visible(&id) && node.life_of(&id) != Some(stamp.generation) {
                let what = format!("{} ms: {number} shows {:?} of {id:?}", self.now_ms, stamp.generation);
                self.violations.push(what);
            }
        }
    }
}

/// What an event can have changed in what a daemon knows of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Nothing,
    Origin(NodeId),
    Everything,
}

impl Scope {
    fn of(what: &What) -> Self {
        let What::Bytes { bytes, .. } = what else { return Self::Everything };
        match decode(bytes, Phase::Proven) {
            Ok(Some((Decoded::Frame(Frame::Update(update)), _))) => Self::Origin(update.origin),
            Ok(Some((
                Decoded::Frame(Frame::Heartbeat(_) | Frame::Have(_) | Frame::Pull(_) | Frame::Prune(_)),
                _,
            ))) => Self::Nothing,
            _ => Self::Everything,
        }
    }
}

/// The service of this name that the simulated hosts offer.
fn service(name: &str, port: u16) -> Option<Entry> {
    let name = name.parse().ok()?;
    Some(Entry::Service(Service { name, instance: 0, port, registered_ms: 0, metadata: Default::default() }))
}
