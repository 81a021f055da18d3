//! One daemon of the cluster as a state machine.
//!
//! ```text
//!   commands, frames, links, time ──▶ Node ──▶ outputs: patches, events, dials
//!                                       └────▶ frames, per link, when its socket can take them
//! ```
//!
//! The rule for callers is *one change, then drain*: after each call of a `handle_` function, call
//! [`Node::poll_output`] until it returns nothing, call [`Node::poll_transmit`] for every link whose socket is
//! writable, and set the timer to [`Node::poll_timeout`]. The daemon and the simulator do this in the same order.
//!
//! The node owns no sockets. The caller dials, authenticates and encrypts. It reports links that have come up, with the
//! proven identity of the peer, and links that have ended.

mod expulsions;
mod inbound;
mod io;
mod links;
mod members;
mod timers;
mod violation;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::entry::EntryTooLong;
use pmd_protocol::peer::frame::Observation;
use pmd_protocol::peer::{Entry, Frame, Generation, Host, NodeId, Stamp};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::attest::{Keys, Signed, hash_content, id_of};
use crate::event::{ClusterChange, ClusterEvent, cluster_changes};
use crate::facts::{Share, Unshared};
use crate::gossip::link::Link;
pub use crate::gossip::link::LinkId;
use crate::gossip::tree::{Grafts, Parents};
use crate::membership::evidence::Evidence;
use crate::membership::expulsions::Expulsions;
use crate::membership::health::Health;
use crate::membership::record::{Record, Standing};
use crate::membership::table::MemberTable;
use crate::membership::{Identity, Liveness};
use crate::overlay::Overlay;
use crate::replica::Replica;
use crate::replica::view::Patch;
use crate::tuning::Tuning;
pub use io::{Alarm, Command, CommandError, LinkEvent, Now, Output, Purpose, Settings};
pub use violation::Rule;

/// How far in the future, by this daemon's clock, something may be dated that can only be replaced by something later: the
/// generation of a member, a decision, a rotation of the cluster secret. A hundred years: clocks that are years apart are
/// common (a board without a battery starts in 1970) and do no harm. Without this bound, the last possible date would leave
/// nothing that could replace it.
pub const MAX_AHEAD_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1_000;

/// The delay between announcing the departure in the registry and leaving the membership. Long enough for the
/// announcement to reach all members, short enough not to be noticed.
const LEAVE_MS: u64 = 200;

/// The capacity that an empty output queue keeps.
const MAX_IDLE_OUTPUTS: usize = 64;

/// A cluster node, see the module documentation.
#[derive(Debug)]
pub struct Node<S = Unshared> {
    now: Now,
    keys: Arc<dyn Keys>,
    tuning: Tuning,
    host: Host,
    rng: ChaCha8Rng,
    replica: Replica<S>,
    table: MemberTable<S>,
    overlay: Overlay,
    evidence: Evidence,
    expulsions: Expulsions,
    health: Health,
    links: BTreeMap<LinkId, Link>,
    by_peer: BTreeMap<NodeId, LinkId>,
    grafts: Grafts,
    parents: Parents,
    /// Members that were lost, and when.
    lost: BTreeMap<NodeId, (Identity, u64)>,
    /// Probes in progress: their targets, and who wants the results.
    probes: BTreeMap<u64, (NodeId, ProbeFor)>,
    next_probe: u64,
    /// Answers to peers' probe requests that are held back.
    held_back: Vec<HeldBack>,
    next_seek_ms: u64,
    next_exchange_ms: u64,
    next_surplus_ms: u64,
    /// How much earlier its heartbeats are than those of a daemon that sends them on full seconds.
    phase_ms: u64,
    /// When this daemon last fired a timer late. It may not have read yet what peers sent before that.
    woken_ms: u64,
    /// When this daemon may next renew itself because others consider it dead.
    next_renewal_ms: u64,
    /// When an operator may next be told that somebody's generation begins in the future.
    next_future_alarm_ms: u64,
    /// When an operator may next be told that a peer introduces too many members.
    next_introductions_alarm_ms: u64,
    /// Live members that were told that others consider them dead.
    challenges: BTreeMap<NodeId, Challenge>,
    /// The link that the message being handled arrived on.
    source: Option<LinkId>,
    /// The version of its own entries that this daemon has signed last.
    signed_stamp: Option<Stamp>,
    /// When this daemon began new generations because others knew a later one.
    new_generations: VecDeque<u64>,
    /// A generation that others consider this daemon's latest. It was not superseded, because this daemon has already
    /// begun too many new generations.
    contested: Option<Generation>,
    leaving: Leaving,
    outputs: VecDeque<Output>,
}

/// A member that was told that others consider it dead.
#[derive(Clone, Copy, Debug)]
struct Challenge {
    /// If its standing is still the same by then, the others may be right.
    standing: Standing,
    due_ms: u64,
}

/// The progress of leaving.
///
/// A daemon announces its departure in the registry first, so that others can tell it from a failure when the
/// membership reports the daemon down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The departure was announced; the daemon leaves the membership at this time.
    Announced(u64),
    /// The daemon no longer belongs to the cluster.
    Left,
}

/// Who wants the result of a probe.
#[derive(Clone, Copy, Debug)]
enum ProbeFor {
    /// This daemon, for the case with this token.
    Own(u64),
    /// A peer.
    Helper(ForPeer),
}

/// A peer's request for a probe.
#[derive(Clone, Copy, Debug)]
struct ForPeer {
    link: LinkId,
    /// The peer's token.
    token: u64,
    /// When an answer that the member is silent is given. Earlier it would tell a port that is closed, or at which
    /// something else listens, from one that drops packets.
    silent_ms: u64,
}

/// An answer to a peer that is held back until its time tells nothing.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    request: ForPeer,
    observation: Observation,
}

impl Node {
    /// A daemon that knows no other member.
    ///
    /// # Errors
    ///
    /// If its description of itself is too long.
    pub fn new(settings: Settings, now: Now) -> Result<Self, EntryTooLong> {
        Self::sharing(settings, now, Unshared)
    }
}

/// The number of links that a daemon has on average, see [`overlay`](crate::overlay).
const USUAL_LINKS: usize = 10;
/// How many times longer than usual changes are collected at most, however many links there are.
const MAX_CROWD: u64 = 10;

impl<S: Share> Node<S> {
    /// Like [`new`](Node::new), with facts shared with other daemons in this process.
    ///
    /// # Errors
    ///
    /// If its description of itself is too long.
    pub fn sharing(settings: Settings, now: Now, share: S) -> Result<Self, EntryTooLong> {
        let Settings { keys, seed, addresses, host, tuning, administrators, decisions } = settings;
        let public_key = keys.public_key();
        let id = id_of(&public_key);
        let mut rng = ChaCha8Rng::from_seed(seed);
        let generation = Generation { boot_ms: now.wall_ms, nonce: rng.random() };
        let mut replica = Replica::sharing(id, generation, tuning.replica, share.clone());
        let (key, value) = Entry::Host(host.clone()).write()?;
        // No copy of the view exists yet, so the patch is not needed.
        let _ = replica.put(key, value);
        let exchange = tuning.gossip.exchange_ms;
        let mut node = Self {
            now,
            keys,
            table: MemberTable::new(
                Identity::new(id, generation, &addresses),
                public_key,
                tuning.membership,
                share,
            ),
            overlay: Overlay::new(id, tuning.gossip),
            evidence: Evidence::new(id, &tuning.membership),
            expulsions: Expulsions::new(administrators),
            health: Health::new(&tuning.membership),
            links: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            grafts: Grafts::new(tuning.gossip),
            parents: Parents::default(),
            lost: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            held_back: Vec::new(),
            next_seek_ms: now.mono_ms,
            next_exchange_ms: now.mono_ms.saturating_add(rng.random_range(0..=exchange)),
            phase_ms: rng.random_range(0..=exchange),
            next_surplus_ms: now.mono_ms.saturating_add(tuning.gossip.surplus_ms),
            woken_ms: now.mono_ms,
            next_renewal_ms: now.mono_ms,
            next_future_alarm_ms: now.mono_ms,
            next_introductions_alarm_ms: now.mono_ms,
            challenges: BTreeMap::new(),
            source: None,
            signed_stamp: None,
            new_generations: VecDeque::new(),
            contested: None,
            leaving: Leaving::No,
            outputs: VecDeque::new(),
            tuning,
            host,
            rng,
            replica,
        };
        node.remember_decisions(decisions);
        // The caller knows them.
        node.outputs.clear();
        Ok(node)
    }

    /// Its current identity, which it presents in handshakes.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.table.identity()
    }

    /// The registry of all hosts.
    #[must_use]
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The live members besides this one.
    pub fn members(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.table.members()
    }

    /// The record of a member or of this daemon.
    #[must_use]
    pub fn record(&self, id: &NodeId) -> Option<&Record> {
        self.table.record(id)
    }

    /// The number of live members besides this one.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.table.len()
    }

    /// The ids of all other members that are remembered, dead or alive, except those that were expelled, and whether they
    /// have left.
    pub fn known_members(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.table.known().filter(|(id, _)| !self.expulsions.is_expelled(id))
    }

    /// The generation of a live member.
    #[must_use]
    pub fn generation_of(&self, id: &NodeId) -> Option<Generation> {
        self.table.member(id).map(|(identity, _)| identity.generation)
    }

    /// The links, with round-trip times and phi.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The decisions of administrators about members.
    #[must_use]
    pub fn expulsions(&self) -> &Expulsions {
        &self.expulsions
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// If the command cannot be carried out. Nothing has changed then.
    pub fn handle_command(&mut self, now: Now, command: Command) -> Result<(), CommandError> {
        self.now = now;
        if self.leaving != Leaving::No {
            return Err(CommandError::Leaving);
        }
        match command {
            Command::Put(entry) => {
                if let Entry::Host(host) = &entry {
                    self.host = host.clone();
                }
                let (key, value) = entry.write()?;
                if !self.replica.store().has_room_for(&key, &value) {
                    self.outputs.push_back(Output::Alarm(Alarm::Full));
                    return Err(CommandError::Full);
                }
                let patch = self.replica.put(key, value);
                self.publish_own(patch);
            }
            Command::Remove(entry) => {
                let patch = self.replica.delete(&entry.key()?);
                self.publish_own(patch);
            }
            Command::Advertise(addresses) => {
                self.table.advertise(&addresses);
            }
            Command::Decide { member, host, expelled } => self.decide(member, host, expelled),
            Command::Leave => self.leave()?,
        }
        self.process_membership();
        Ok(())
    }

    /// Handles a message from a link. Messages on unknown links are ignored, because these links were just closed.
    pub fn handle_frame(&mut self, now: Now, link: LinkId, frame: Frame) {
        self.now = now;
        self.source = Some(link);
        self.dispatch(link, frame);
        self.process_membership();
    }

    /// Handles a message from a one-shot connection of a proven member, see [`Output::OneShot`].
    pub fn handle_one_shot(&mut self, now: Now, frame: Frame) {
        self.now = now;
        if let Frame::Membership(membership) = frame
            // Nobody is introduced this way: it is for the accused.
            && let Ok(merged) = self.merge(None, &membership.records)
        {
            self.forward_refuted(merged.refuted);
        }
        self.process_membership();
    }

    /// Handles a change of a link.
    pub fn handle_link(&mut self, now: Now, event: LinkEvent) {
        self.now = now;
        match event {
            LinkEvent::Up { link, peer, initiated, host } => self.link_up(link, (peer, host), initiated),
            LinkEvent::Down { link, reason } => self.link_down(link, reason),
            LinkEvent::Failed { peer } => self.link_failed(peer),
            LinkEvent::Probed { token, observation } => self.probed(token, observation),
        }
        self.process_membership();
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.run_due();
        self.process_membership();
    }

    /// Requests summaries of all peers' registries, for a caller that wants to know now whether they agree. The answers
    /// arrive a round trip later and appear in [`Link::summary`]. Nothing else depends on them, because heartbeats
    /// detect registries that differ.
    pub fn request_summaries(&mut self, now: Now) {
        self.now = now;
        self.links.values_mut().for_each(|link| link.send_tally(true));
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() && self.outputs.capacity() > MAX_IDLE_OUTPUTS {
            // A burst, such as joining a large cluster, needed the capacity, but normal operation does not.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// The next message for a link whose socket can take `budget` bytes; `None` if there is none.
    ///
    /// Updates are built from the current state of the registry, so callers should take a message only when they can
    /// write it.
    pub fn poll_transmit(&mut self, link: LinkId, budget: usize) -> Option<Frame> {
        self.sign_own();
        // Whoever has many links, because many daemons join it at once, collects for longer: each change costs it as many frames.
        let crowd = u64::try_from(self.links.len() / USUAL_LINKS).unwrap_or(u64::MAX).clamp(1, MAX_CROWD);
        self.links.get_mut(&link)?.poll(self.now.mono_ms, &self.replica, &self.table, (budget, crowd))
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.next_due()
    }

    fn me(&self) -> NodeId {
        self.replica.store().me()
    }

    /// Signs what this daemon says about itself, if that has changed: once for all changes since the last message.
    fn sign_own(&mut self) {
        let (me, stamp) = (self.me(), self.replica.store().own().stamp());
        let Some(record) = self.table.record(&me) else { return };
        if self.signed_stamp == Some(stamp) && !record.attestation.signature.as_bytes().is_empty() {
            return;
        }
        self.signed_stamp = Some(stamp);
        let content = hash_content(&me, &stamp);
        let signed = Signed::sign(&*self.keys, record.statement(), content);
        self.table.attest(&me, signed.member_attestation());
        self.replica.attest(&me, signed.content_attestation());
    }

    /// Publishes a change of this daemon's own entries, and sends it to all peers.
    fn publish_own(&mut self, patch: Option<Patch>) {
        self.publish(patch);
        self.offer(self.me());
    }

    /// Publishes a change of the view.
    fn publish(&mut self, patch: Option<Patch>) {
        let Some(patch) = patch else { return };
        let (Patch::Change { origin, .. } | Patch::Hide { origin, .. }) = &patch;
        let (origin, host) = (*origin, self.replica.view().host(origin).cloned());
        for change in cluster_changes(&patch) {
            self.report(origin, host.clone(), change);
        }
        self.outputs.push_back(Output::Patch(patch));
    }

    fn report(&mut self, origin: NodeId, host: Option<HostName>, change: ClusterChange) {
        let at_ms = self.now.wall_ms;
        self.outputs.push_back(Output::Event(ClusterEvent { at_ms, origin, host, change }));
    }

    fn leave(&mut self) -> Result<(), EntryTooLong> {
        let (key, value) = Entry::Host(Host { leaving: true, ..self.host.clone() }).write()?;
        let patch = self.replica.put(key, value);
        self.publish_own(patch);
        self.leaving = Leaving::Announced(self.now.mono_ms.saturating_add(LEAVE_MS));
        Ok(())
    }
}
