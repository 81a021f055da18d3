//! One daemon of the cluster, as a state machine.
//!
//! ```text
//!   commands, frames, links, time ──▶ Node ──▶ outputs: patches, events, dials
//!                                       └────▶ frames, per link, when its socket can take them
//! ```
//!
//! The rule of its use is *one change, then drain*: after each call of a `handle_` function, [`Node::poll_output`] is
//! called until it returns nothing, [`Node::poll_transmit`] for every link whose socket can take something, and the timer
//! is set to [`Node::poll_timeout`]. The daemon and the simulator do so in the same order.
//!
//! The node owns no socket. Who dials, proves and encrypts tells it of links that have come up, with the identity that
//! was proven, and of those that have ended.

mod inbound;
mod members;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_LOST;
use pmd_protocol::peer::entry::TooLong;
use pmd_protocol::peer::frame::{Lost, Reason, Sight};
use pmd_protocol::peer::{Entry, Frame, Generation, Host, KeyError, NodeId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::event::{Event, Happening, happenings};
use crate::facts::{Share, Unshared};
use crate::gossip::link::Link;
pub use crate::gossip::link::LinkId;
use crate::gossip::tree::{Grafts, Parents};
use crate::membership::evidence::{Clue, Evidence};
use crate::membership::health::Health;
use crate::membership::record::Standing;
use crate::membership::table::Swim;
use crate::membership::{Identity, Liveness};
use crate::overlay::Overlay;
use crate::replica::Registry;
use crate::replica::store::Source;
use crate::replica::view::Patch;
use crate::tuning::Tuning;

/// Between saying so in the registry and leaving the membership: longer than news need to everybody, shorter than
/// anybody minds.
const LEAVE_MS: u64 = 200;

/// Room that is kept for outputs when there are none.
const MAX_IDLE_OUTPUTS: usize = 64;

/// The time, as the caller sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward, since any moment. Everything is decided by it.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch. Only shown to people, and the beginning of lives.
    pub wall_ms: u64,
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hash of its public key.
    pub id: NodeId,
    /// Chance: the nonce of its life, and the seed of all its choices.
    pub seed: [u8; 32],
    /// Where others can reach it, best first.
    pub addresses: Vec<SocketAddr>,
    /// What it says about itself.
    pub host: Host,
    /// All numbers.
    pub tuning: Tuning,
}

/// What a local user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Register an Erlang node or a service, or change what is said about it.
    Put(Entry),
    /// End a registration: that of the entry with the same kind, name and instance.
    Remove(Entry),
    /// Tell others that this daemon can be reached at these addresses from now on, best first.
    Advertise(Vec<SocketAddr>),
    /// Tell the cluster that this daemon leaves; ends with [`Output::Left`].
    Leave,
}

/// Something has happened to a link, or to an attempt to make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Both sides have proven who they are.
    Up {
        /// The link's number, never used before.
        link: LinkId,
        /// Who is at the other end.
        peer: Identity,
        /// Whether this daemon dialled.
        initiated: bool,
    },
    /// A link has ended, other than by [`Output::Close`].
    Down {
        /// Which.
        link: LinkId,
        /// The farewell, if there was one.
        farewell: Option<Reason>,
    },
    /// A dial for [`Purpose::Link`] did not lead to a link.
    Failed {
        /// Whom it was for.
        peer: NodeId,
    },
    /// A dial for [`Purpose::Probe`] has ended.
    Probed {
        /// The number of the probe.
        token: u64,
        /// What was seen. Whoever completes the handshake is reached.
        sight: Sight,
    },
}

/// Why somebody is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make a link. Ends with [`LinkEvent::Up`] or [`LinkEvent::Failed`].
    Link,
    /// To see whether it can be reached; the connection is closed again. Ends with [`LinkEvent::Probed`], after
    /// `probe_rtt_ms` at the latest: others wait for the answer.
    Probe(u64),
}

/// What the node wants done, or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial a member.
    Dial {
        /// Whom.
        peer: Identity,
        /// What for.
        purpose: Purpose,
    },
    /// Say farewell and end a link. Nothing more will be told about it.
    Close {
        /// Which.
        link: LinkId,
        /// What to say.
        reason: Reason,
    },
    /// Send a message to somebody to whom there is no link, over a short connection. It may get lost.
    Packet {
        /// To whom.
        to: Identity,
        /// What.
        frame: Frame,
    },
    /// The directory has changed.
    Patch(Patch),
    /// Something has happened that people may want to know.
    Event(Event),
    /// Something is wrong that an operator has to know.
    Alarm(Alarm),
    /// Everybody has been told that this daemon leaves: when there is nothing to transmit any more, the links can end.
    Left,
}

/// Something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Two daemons write under this identity: its key was copied, or a running machine was.
    Forked(NodeId),
    /// Another daemon has this one's identity and does not give way. One of the two needs a key of its own.
    IdentityTaken,
    /// A peer has sent what no honest daemon sends; the link is closed.
    Violation(NodeId),
}

/// A daemon. See the module.
#[derive(Debug)]
pub struct Node<S = Unshared> {
    now: Now,
    tuning: Tuning,
    host: Host,
    rng: ChaCha8Rng,
    registry: Registry<S>,
    swim: Swim<S>,
    overlay: Overlay,
    evidence: Evidence,
    health: Health,
    links: BTreeMap<LinkId, Link>,
    by_peer: BTreeMap<NodeId, LinkId>,
    grafts: Grafts,
    parents: Parents,
    /// Members that were lost, and when.
    lost: BTreeMap<NodeId, (Identity, u64)>,
    /// Dials under way to see whether somebody can be reached, and for whom.
    probes: BTreeMap<u64, ProbeFor>,
    next_probe: u64,
    next_seek_ms: u64,
    next_exchange_ms: u64,
    next_surplus_ms: u64,
    /// By how much its heartbeats come before those of a daemon that sends them at full seconds.
    phase_ms: u64,
    /// When this daemon was late last: what peers said before that may have been missed.
    woken_ms: u64,
    next_recall_ms: u64,
    /// Live members that others take for dead, and since when they are called.
    recalls: BTreeMap<NodeId, Recall>,
    /// On which link that came what is being dealt with.
    teller: Option<LinkId>,
    /// When this daemon began new lives because others knew of a later one.
    renewals: VecDeque<u64>,
    /// A life that others take for this daemon's last, and that it has not answered because that would be one new life
    /// too many.
    contested: Option<Generation>,
    leaving: Leaving,
    outputs: VecDeque<Output>,
}

/// A member was told that others take it for dead.
#[derive(Clone, Copy, Debug)]
struct Recall {
    /// If nothing is newer than this by then, the others may be right.
    standing: Standing,
    due_ms: u64,
}

/// How far this daemon is with leaving.
///
/// It says so in the registry first, so that others know a farewell when the membership tells them of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// It has said so; the membership is told at this time.
    Announced(u64),
    /// It does not belong to the cluster any more.
    Left,
}

/// Who wants to know the result of a probe.
#[derive(Clone, Copy, Debug)]
enum ProbeFor {
    /// A case of this daemon.
    Own(u64),
    /// A peer.
    Helper(LinkId, u64),
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// See [`TooLong`].
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// See [`KeyError`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This daemon has left the cluster.
    #[error("the daemon is leaving the cluster")]
    Leaving,
}

impl Node {
    /// A daemon that knows nobody.
    ///
    /// # Errors
    ///
    /// If what it says about itself is too long to be told.
    pub fn new(settings: Settings, now: Now) -> Result<Self, TooLong> {
        Self::sharing(settings, now, Unshared)
    }
}

impl<S: Share> Node<S> {
    /// The same, with facts that are shared with other daemons of this process.
    ///
    /// # Errors
    ///
    /// If what it says about itself is too long to be told.
    pub fn sharing(settings: Settings, now: Now, share: S) -> Result<Self, TooLong> {
        let Settings { id, seed, addresses, host, tuning } = settings;
        let mut rng = ChaCha8Rng::from_seed(seed);
        let generation = Generation { boot_ms: now.wall_ms, nonce: rng.random() };
        let mut registry = Registry::sharing(id, generation, tuning.registry, share.clone());
        let (key, value) = Entry::Host(host.clone()).write()?;
        // Nobody has a copy of the directory yet who would have to be told.
        let _ = registry.put(key, value);
        let exchange = tuning.spread.exchange_ms;
        Ok(Self {
            now,
            swim: Swim::new(Identity::new(id, generation, &addresses), tuning.membership, share),
            overlay: Overlay::new(id, tuning.spread),
            evidence: Evidence::new(id, &tuning.membership),
            health: Health::new(&tuning.membership),
            links: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            grafts: Grafts::new(tuning.spread),
            parents: Parents::default(),
            lost: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            next_seek_ms: now.mono_ms,
            next_exchange_ms: now.mono_ms.saturating_add(rng.random_range(0..=exchange)),
            phase_ms: rng.random_range(0..=exchange),
            next_surplus_ms: now.mono_ms.saturating_add(tuning.spread.surplus_ms),
            woken_ms: now.mono_ms,
            next_recall_ms: now.mono_ms,
            recalls: BTreeMap::new(),
            teller: None,
            renewals: VecDeque::new(),
            contested: None,
            leaving: Leaving::No,
            outputs: VecDeque::new(),
            tuning,
            host,
            rng,
            registry,
        })
    }

    /// What it is called at the moment; what it greets others with.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.swim.identity()
    }

    /// What is registered, everywhere.
    #[must_use]
    pub fn registry(&self) -> &Registry<S> {
        &self.registry
    }

    /// The live members besides this one.
    pub fn members(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.swim.members()
    }

    /// How many live members there are besides this one.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.swim.len()
    }

    /// The life in which a member is alive.
    #[must_use]
    pub fn life_of(&self, id: &NodeId) -> Option<Generation> {
        self.swim.member(id).map(|(identity, _)| identity.generation)
    }

    /// The links, with round-trip time and phi.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// Does what a local user wants.
    ///
    /// # Errors
    ///
    /// If it cannot be done; nothing has changed then.
    pub fn handle_command(&mut self, now: Now, command: Command) -> Result<(), CommandError> {
        self.now = now;
        if self.leaving != Leaving::No {
            return Err(CommandError::Leaving);
        }
        match command {
            Command::Put(entry) => {
                let (key, value) = entry.write()?;
                let patch = self.registry.put(key, value);
                self.own_change(patch);
            }
            Command::Remove(entry) => {
                let patch = self.registry.delete(&entry.key()?);
                self.own_change(patch);
            }
            Command::Advertise(addresses) => {
                self.swim.advertise(&addresses);
            }
            Command::Leave => self.leave()?,
        }
        self.settle();
        Ok(())
    }

    /// Takes a message from a link. Links that are not known are ignored: they were closed, and it crossed that.
    pub fn handle_frame(&mut self, now: Now, link: LinkId, frame: Frame) {
        self.now = now;
        self.teller = Some(link);
        self.take_frame(link, frame);
        self.settle();
    }

    /// Takes a message that came over a short connection from a proven member, see [`Output::Packet`].
    pub fn handle_packet(&mut self, now: Now, frame: Frame) {
        self.now = now;
        if let Frame::Membership(membership) = frame {
            // Malformed packets are nobody's business but the sender's.
            let _ = self.swim.handle_packet(now.mono_ms, &membership.packet);
        }
        self.settle();
    }

    /// Something has happened to a link.
    pub fn handle_link(&mut self, now: Now, event: LinkEvent) {
        self.now = now;
        match event {
            LinkEvent::Up { link, peer, initiated } => self.link_up(link, peer, initiated),
            LinkEvent::Down { link, farewell } => self.link_down(link, farewell),
            LinkEvent::Failed { peer } => self.link_failed(peer),
            LinkEvent::Probed { token, sight } => self.probed(token, sight),
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.run_due();
        self.settle();
    }

    /// Asks all linked peers what their registries amount to, for somebody who wants to know now whether all agree. The
    /// answers are there when [`Link::summary`] says so, some round trip later. Nothing is decided by them: whether two
    /// registries differ for good is for the heartbeats to find out.
    pub fn ask_tallies(&mut self, now: Now) {
        self.now = now;
        self.links.values_mut().for_each(|link| link.tally(true));
    }

    /// What is wanted next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() && self.outputs.capacity() > MAX_IDLE_OUTPUTS {
            // Room that only a burst needed, such as the first sight of a large cluster.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// The next message for a link whose socket can take `budget` bytes; `None` if there is nothing to say.
    ///
    /// Updates are made at this moment from what the registry is now, so messages should be taken when they can be
    /// written and not before.
    pub fn poll_transmit(&mut self, link: LinkId, budget: usize) -> Option<Frame> {
        self.links.get_mut(&link)?.poll(self.now.mono_ms, &self.registry, &self.swim, budget)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.next_due()
    }

    fn me(&self) -> NodeId {
        self.registry.store().me()
    }

    fn own_change(&mut self, patch: Option<Patch>) {
        self.publish(patch);
        self.offer(self.me());
    }

    /// Tells of a change of the directory.
    fn publish(&mut self, patch: Option<Patch>) {
        let Some(patch) = patch else { return };
        let (Patch::Change { origin, .. } | Patch::Hide { origin, .. }) = &patch;
        let (origin, host) = (*origin, self.registry.directory().host(origin).cloned());
        for what in happenings(&patch) {
            self.report(origin, host.clone(), what);
        }
        self.outputs.push_back(Output::Patch(patch));
    }

    fn report(&mut self, origin: NodeId, host: Option<HostName>, what: Happening) {
        self.outputs.push_back(Output::Event(Event { at_ms: self.now.wall_ms, origin, host, what }));
    }

    /// There may be something new of an origin: every link whose peer does not have it will carry it.
    fn offer(&mut self, origin: NodeId) {
        if !self.registry.is_live(&origin) {
            return;
        }
        let Some(stamp) = self.registry.store().stamp(&origin) else { return };
        // Nobody has to be told about itself.
        for link in self.links.values_mut().filter(|link| link.peer.id != origin) {
            let summarise = self.overlay.is_near(&link.peer.id);
            link.offer(self.now.mono_ms, origin, stamp, summarise);
        }
    }

    /// An origin has come that was not here: whoever has asked for it gets it.
    fn offer_wanted(&mut self, origin: NodeId) {
        if self.registry.is_live(&origin) {
            self.links.values_mut().for_each(|link| link.offer_wanted(self.now.mono_ms, origin));
        }
    }

    fn link_up(&mut self, id: LinkId, peer: Identity, initiated: bool) {
        let who = peer.id;
        if who == self.me() {
            // It has dialled itself.
            self.outputs.push_back(Output::Close { link: id, reason: Reason::Duplicate });
            return;
        }
        let now_ms = self.now.mono_ms;
        if let Some(old) = self.by_peer.get(&who).copied() {
            // Both may have dialled at once: both keep the link that the lower id has dialled. If one has dialled
            // twice, it has lost the first; so it has if that has been silent for too long.
            let by_lower = |initiated: bool| initiated == (self.me() < who);
            let keep_old = self.links.get(&old).is_some_and(|link| {
                by_lower(link.initiated) && !by_lower(initiated) && link.phi.is_fresh(now_ms)
            });
            let surplus = if keep_old { id } else { old };
            self.outputs.push_back(Output::Close { link: surplus, reason: Reason::Duplicate });
            if keep_old {
                return;
            }
            self.forget_link(old);
        }
        self.overlay.linked(&who);
        self.evidence.drop_case(&who);
        let is_new = self.life_of(&who) != Some(peer.generation);
        let mut link = Link::new(peer.clone(), initiated, now_ms, self.phase_ms, &self.tuning);
        link.beat(now_ms, self.pace(&who));
        let members: Vec<_> = self.lost.keys().filter(|id| **id != who).take(MAX_LOST).copied().collect();
        if !members.is_empty() {
            link.send(Frame::Lost(Lost { members }));
        }
        self.links.insert(id, link);
        self.by_peer.insert(who, id);
        self.teller = Some(id);
        self.swim.meet(now_ms, peer);
        self.introduce(id, who);
        if is_new {
            self.tell_all(id);
        }
    }

    fn link_down(&mut self, id: LinkId, farewell: Option<Reason>) {
        let Some(link) = self.forget_link(id) else { return };
        self.overlay.failed(self.now.mono_ms, link.peer.id, &mut self.rng);
        if farewell.is_none() {
            self.clue((link.peer.id, link.peer.generation), Clue::Ended);
        }
    }

    fn link_failed(&mut self, peer: NodeId) {
        self.overlay.failed(self.now.mono_ms, peer, &mut self.rng);
        if let Some(generation) = self.life_of(&peer) {
            self.clue((peer, generation), Clue::Unreached);
        }
    }

    /// How often heartbeats go to a member.
    fn pace(&self, id: &NodeId) -> u64 {
        let interval_ms = self.tuning.membership.phi.interval_ms;
        let far = self.tuning.spread.far_pace.max(1);
        if self.overlay.is_near(id) { interval_ms } else { interval_ms.saturating_mul(far) }
    }

    fn forget_link(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        if self.by_peer.get(&link.peer.id) == Some(&id) {
            self.by_peer.remove(&link.peer.id);
        }
        self.grafts.drop_link(id);
        self.registry.drop_source(Source(id.0));
        for origin in self.parents.drop_link(id) {
            self.graft_spare(origin);
        }
        Some(link)
    }

    /// An origin's way here has ended: another on which it came as well becomes its way.
    fn graft_spare(&mut self, origin: NodeId) {
        let have = self.registry.store().stamp(&origin).filter(|_| self.registry.is_live(&origin));
        let Some(have) = have else { return };
        if let Some((id, link)) = self.links.iter_mut().find(|(_, link)| link.is_spare(&origin)) {
            link.pull(origin, Some(have), true);
            self.parents.came_first(origin, *id);
        }
    }

    fn close(&mut self, id: LinkId, reason: Reason) {
        if let Some(link) = self.forget_link(id) {
            // If it is wanted after all, it will be dialled again.
            self.overlay.failed(self.now.mono_ms, link.peer.id, &mut self.rng);
            self.outputs.push_back(Output::Close { link: id, reason });
        }
    }

    fn linked(&self) -> BTreeSet<NodeId> {
        self.by_peer.keys().copied().collect()
    }

    fn leave(&mut self) -> Result<(), TooLong> {
        let (key, value) = Entry::Host(Host { leaving: true, ..self.host.clone() }).write()?;
        let patch = self.registry.put(key, value);
        self.own_change(patch);
        self.leaving = Leaving::Announced(self.now.mono_ms.saturating_add(LEAVE_MS));
        Ok(())
    }
}
