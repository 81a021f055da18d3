//! The delivery of bytes, dials and timers to the daemons.

use pmd_protocol::HostName;
use pmd_protocol::limits::{FRAME_FIXED, MAX_FRAME};
use pmd_protocol::peer::Frame;
use pmd_protocol::peer::codec::{Decoded, Phase, decode, encode};
use pmd_protocol::peer::frame::Observation;
use rand::RngExt;
use sha2::Digest as _;

use super::network::{End, HostState, Scope, SimNode, What};
use super::world::{World, host_at};
use crate::membership::Identity;
use crate::node::{LinkEvent, LinkId, Now, Output, Purpose};

/// The number of bytes that may be in flight on a link, as limited by socket buffers.
const WINDOW: usize = 128 * 1024;
/// The number of retransmissions after which the transport gives up, and the first and longest pause between them (RFC
/// 6298 and Linux defaults).
const RETRIES: u32 = 15;
const RETRY_MS: u64 = 200;
const RETRY_MAX_MS: u64 = 120_000;
/// How long an acknowledgement waits for a frame to go back (Linux).
const DELAYED_MS: u64 = 40;
/// The timeout of a dial.
const DIAL_TIMEOUT_MS: u64 = 1_000;
/// The number of events after which the pool drops unused facts.
const TRIM_EVERY: u64 = 1 << 20;
/// More events than this in one millisecond indicate an endless loop.
const MOST_AT_ONCE: u64 = 4_000_000;

impl World {
    /// Handles the next event that is due by `end`, if any.
    pub(super) fn step(&mut self, end: u64) -> bool {
        let Some(next_ms) = self.heap.next_ms().filter(|next_ms| *next_ms <= end) else { return false };
        self.still = if next_ms == self.now_ms { self.still + 1 } else { 0 };
        let Some((at_ms, (number, boot, what))) = self.heap.pop() else { return false };
        if self.still > MOST_AT_ONCE {
            self.violations.push(format!("{at_ms} ms: time does not advance, next is {what:?}"));
            self.heap.clear();
            return false;
        }
        self.now_ms = at_ms;
        let dialled = matches!(what, What::Dialled { .. });
        let Some(daemon) = self.daemon(number).filter(|daemon| daemon.boot == boot || dialled) else {
            self.refuse_or_time_out(number, &what);
            return true;
        };
        let wakes = matches!(what, What::Wake);
        if daemon.frozen {
            // Its host accepts connections, but the caller gets no answer and times out.
            if dialled {
                self.refuse_or_time_out(number, &what);
            } else if !wakes {
                daemon.waiting.push_back(what);
            }
            return true;
        }
        if wakes && daemon.wake_ms != at_ms {
            return true;
        }
        self.events += 1;
        if self.events.is_multiple_of(TRIM_EVERY) {
            self.pool.trim();
        }
        self.log.update(self.now_ms.to_be_bytes());
        self.log.update(u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
        let scope = self.happen(number, boot, what);
        self.check(number, scope);
        true
    }

    /// Handles an event for a daemon that is no longer running.
    fn refuse_or_time_out(&mut self, number: usize, what: &What) {
        let state = self.hosts.get(number).map_or(HostState::Vanished, |host| host.state);
        if let What::Dialled { from, from_boot, purpose, .. } = *what {
            let Some(id) = self.hosts.get(number).map(|host| host.id) else { return };
            let peer = Identity::new(id, Default::default(), &[]);
            let (after, observation) = match state {
                HostState::Refuses => (self.latency(), Observation::Refused),
                HostState::Up | HostState::Vanished => (timeout(purpose), Observation::Silent),
            };
            self.push(self.now_ms + after, from, from_boot, What::NoAnswer { peer, purpose, observation });
        }
    }

    fn happen(&mut self, number: usize, boot: u64, what: What) -> Scope {
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
            What::Bytes { link, bytes, tries } => return self.arrive(number, boot, link, bytes, tries),
            What::Gone { link, reason } => {
                if self.daemon(number).and_then(|daemon| daemon.links.remove(&link)).is_some() {
                    self.with(number, |node, now| node.handle_link(now, LinkEvent::Down { link, reason }));
                }
            }
            What::Dialled { from, from_boot, caller, purpose } => {
                self.accept(number, from, from_boot, caller, purpose);
            }
            What::Answered { from, from_boot, peer_link, peer, purpose } => {
                self.answered(number, (from, from_boot), peer_link, peer, purpose);
            }
            What::NoAnswer { peer, purpose, observation } => {
                let event = match purpose {
                    Purpose::Link => LinkEvent::Failed { peer: peer.id },
                    Purpose::Probe { token, discreet, .. } => {
                        let met = self.daemon(number).is_some_and(|daemon| daemon.met.contains(&peer.id));
                        let hides = discreet && observation == Observation::Refused && !met;
                        let observation = if hides { Observation::Silent } else { observation };
                        LinkEvent::Probed { token, observation }
                    }
                };
                self.with(number, |node, now| node.handle_link(now, event));
            }
            What::OneShot { frame } => self.with(number, |node, now| node.handle_one_shot(now, frame)),
        }
        Scope::Everything
    }

    fn arrive(&mut self, number: usize, boot: u64, link: LinkId, bytes: Vec<u8>, tries: u32) -> Scope {
        let now_ms = self.now_ms;
        let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get(&link)) else {
            return Scope::Nothing;
        };
        let (peer, peer_boot, peer_link) = (end.peer, end.peer_boot, end.peer_link);
        if self.faults.blocks(peer, number) {
            // The transport retransmits and finally gives up. The other side does so independently.
            let pause = RETRY_MS.checked_shl(tries).unwrap_or(RETRY_MAX_MS).min(RETRY_MAX_MS);
            if tries >= RETRIES {
                let gone = What::Gone { link: peer_link, reason: None };
                self.push(now_ms + pause, peer, peer_boot, gone);
                return self.happen(number, boot, What::Gone { link, reason: None });
            }
            self.push(now_ms + pause, number, boot, What::Bytes { link, bytes, tries: tries + 1 });
            return Scope::Nothing;
        }
        if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get_mut(&link)) {
            end.acknowledge_ms.get_or_insert(now_ms + DELAYED_MS);
        }
        self.log.update(&bytes);
        self.read(peer, peer_boot, peer_link, bytes.len());
        match decode(&bytes, Phase::Proven) {
            Ok(Some((Decoded::Frame(frame), _))) => {
                let scope = scope_of(&frame);
                self.with(number, |node, now| node.handle_frame(now, link, frame));
                return scope;
            }
            other => self.violations.push(format!("cannot decode frame: {other:?}")),
        }
        Scope::Everything
    }

    /// Lets a sender with a full window continue, because the receiver has read something.
    fn read(&mut self, sender: usize, boot: u64, link: LinkId, bytes: usize) {
        let Some(daemon) = self.daemon(sender).filter(|daemon| daemon.boot == boot) else { return };
        let Some(end) = daemon.links.get_mut(&link) else { return };
        let was_full = end.unread >= WINDOW;
        end.unread = end.unread.saturating_sub(bytes);
        if was_full && end.unread < WINDOW && !daemon.frozen {
            self.drain(sender);
        }
    }

    pub(super) fn dial(&mut self, from: usize, peer: &Identity, purpose: Purpose) {
        let Some(caller) = self.introduction(from) else { return };
        let from_boot = self.boot_of(from);
        let failed = What::NoAnswer { peer: peer.clone(), purpose, observation: Observation::Silent };
        let to = host_at(peer).filter(|to| *to < self.hosts.len() && !self.faults.no_handshakes);
        match to.filter(|to| !self.faults.blocks(from, *to) && !self.faults.blocks(*to, from)) {
            Some(to) => {
                // Connection, handshake and proof: three round trips.
                let at = self.now_ms + 5 * self.latency();
                let boot = self.boot_of(to);
                self.traffic.handshakes += 2;
                self.push(at, to, boot, What::Dialled { from, from_boot, caller, purpose });
            }
            None => self.push(self.now_ms + timeout(purpose), from, from_boot, failed),
        }
    }

    fn accept(&mut self, number: usize, from: usize, from_boot: u64, caller: Identity, purpose: Purpose) {
        let Some(peer) = self.introduction(number) else { return };
        let link = match purpose {
            Purpose::Link => Some(self.new_link()),
            Purpose::Probe { .. } => None,
        };
        let boot = self.boot_of(number);
        let at = self.now_ms + self.latency();
        let answer = What::Answered { from: number, from_boot: boot, peer_link: link, peer, purpose };
        self.push(at, from, from_boot, answer);
        if let Some(link) = link {
            // The two ends of a link have consecutive numbers.
            let peer_link = LinkId(link.0 + 1);
            let end = End {
                peer: from,
                peer_boot: from_boot,
                peer_link,
                unread: 0,
                last_ms: at,
                acknowledge_ms: None,
            };
            if let Some(daemon) = self.daemon(number) {
                daemon.links.insert(link, end);
                daemon.met.insert(caller.id);
            }
            let Some(host) = self.name_of(from) else { return };
            let up = LinkEvent::Up { link, peer: caller, initiated: false, host };
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
            (Purpose::Probe { token, .. }, _) => {
                LinkEvent::Probed { token, observation: Observation::Reached }
            }
            (Purpose::Link, None) => LinkEvent::Failed { peer: peer.id },
            (Purpose::Link, Some(peer_link)) => {
                let link = LinkId(peer_link.0 + 1);
                let end = End {
                    peer: from,
                    peer_boot: from_boot,
                    peer_link,
                    unread: 0,
                    last_ms: 0,
                    acknowledge_ms: None,
                };
                if let Some(daemon) = self.daemon(number) {
                    daemon.links.insert(link, end);
                    daemon.met.insert(peer.id);
                }
                let Some(host) = self.name_of(from) else { return };
                LinkEvent::Up { link, peer, initiated: true, host }
            }
        };
        self.with(number, |node, now| node.handle_link(now, event));
    }

    /// The identity that a daemon presents in a handshake, which omits its renewals.
    fn introduction(&self, number: usize) -> Option<Identity> {
        self.node(number).map(|node| Identity { renewal: 0, ..node.identity().clone() })
    }

    /// The name of a host in its handshakes.
    fn name_of(&self, number: usize) -> Option<HostName> {
        self.hosts.get(number)?.name.parse().ok()
    }

    fn boot_of(&self, number: usize) -> u64 {
        self.hosts.get(number).map_or(0, |host| host.boots)
    }

    fn new_link(&mut self) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 2;
        link
    }

    pub(super) fn with(&mut self, number: usize, act: impl FnOnce(&mut SimNode, Now)) {
        let Some(skew) = self.daemon(number).map(|daemon| daemon.skew_ms) else { return };
        let now = self.clock(skew);
        if let Some(daemon) = self.daemon(number) {
            act(&mut daemon.node, now);
        }
        self.drain(number);
    }

    /// Drains a node, as its driver does after each call.
    pub(super) fn drain(&mut self, number: usize) {
        while let Some(output) = self.daemon(number).and_then(|daemon| daemon.node.poll_output()) {
            match output {
                Output::Dial { peer, purpose } => self.dial(number, &peer, purpose),
                Output::Close { link, reason } => {
                    if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.remove(&link)) {
                        let at = end.last_ms.max(self.now_ms + self.latency());
                        let gone = What::Gone { link: end.peer_link, reason: Some(reason) };
                        self.push(at, end.peer, end.peer_boot, gone);
                    }
                }
                Output::OneShot { to, frame } => self.one_shot(number, &to, frame),
                Output::Decided(decision) => {
                    if let Some(host) = self.hosts.get_mut(number) {
                        host.decisions.retain(|known| known.member != decision.member);
                        host.decisions.push(decision);
                    }
                }
                Output::Alarm(alarm) => self.alarms.push((self.now_ms, number, alarm)),
                Output::Event(event) if self.keep_events => {
                    if let Some(daemon) = self.daemon(number) {
                        daemon.events.push(event);
                    }
                }
                Output::Patch(_) | Output::Event(_) | Output::Left => {}
            }
        }
        self.note(number);
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
                    self.violations.push(format!("frame too long: {frame:?}"));
                    continue;
                }
                self.deliver(number, link, &end, bytes);
            }
        }
    }

    fn deliver(&mut self, number: usize, link: LinkId, end: &End, bytes: Vec<u8>) {
        let mut at = self.now_ms + self.latency();
        if self.rng.random_range(0..1_000) < self.faults.loss_permille {
            at += RETRY_MS;
        }
        at = at.max(end.last_ms);
        if let Some((_, pause)) = self.faults.slow_reader.filter(|(reader, _)| *reader == end.peer) {
            at = at.max(end.last_ms + pause);
        }
        self.traffic.frames += 1;
        self.traffic.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        let now_ms = self.now_ms;
        let mut late = false;
        if let Some(end) = self.daemon(number).and_then(|daemon| daemon.links.get_mut(&link)) {
            end.unread += bytes.len();
            end.last_ms = at;
            late = end.acknowledge_ms.take().is_some_and(|due_ms| due_ms < now_ms);
        }
        self.traffic.acknowledgements += u64::from(late);
        self.push(at, end.peer, end.peer_boot, What::Bytes { link: end.peer_link, bytes, tries: 0 });
    }

    fn one_shot(&mut self, from: usize, to: &Identity, frame: Frame) {
        let Some(number) = host_at(to).filter(|_| !self.faults.no_handshakes) else { return };
        let lost = self.rng.random_range(0..1_000) < self.faults.loss_permille;
        if lost || self.faults.blocks(from, number) || self.faults.blocks(number, from) {
            return;
        }
        // In the worst case, the message needs its own connection.
        let mut bytes = Vec::new();
        if encode(&frame, &mut bytes).is_ok() {
            self.traffic.frames += 1;
            self.traffic.handshakes += 2;
            self.traffic.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        }
        let at = self.now_ms + 3 * self.latency();
        self.push(at, number, self.boot_of(number), What::OneShot { frame });
    }
}

/// The origins whose state at the receiver a message may change.
fn scope_of(frame: &Frame) -> Scope {
    match frame {
        Frame::Update(update) => Scope::Origins(vec![update.origin]),
        Frame::Updates(updates) => {
            Scope::Origins(updates.updates.iter().map(|update| update.origin).collect())
        }
        Frame::Heartbeat(_) | Frame::Have(_) | Frame::Pull(_) | Frame::Prune(_) | Frame::Ranges(_) => {
            Scope::Nothing
        }
        _ => Scope::Everything,
    }
}

/// The timeout of a dial.
fn timeout(purpose: Purpose) -> u64 {
    match purpose {
        Purpose::Link => DIAL_TIMEOUT_MS,
        Purpose::Probe { timeout_ms, .. } => timeout_ms,
    }
}
