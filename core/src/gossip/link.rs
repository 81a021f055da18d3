//! What there is to say on one link.
//!
//! Not a queue of messages but a memory of what the peer lacks. An update is written when the socket can take it, from
//! the state of that moment; a peer that reads slowly gets fewer and fresher updates, costs a bounded amount of memory,
//! and slows nobody. Only small messages that cannot be made again are queued, and the oldest go when there are too many:
//! all of them are repeated if they matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pmd_protocol::limits::{MAX_STAMPS, MAX_UPDATES};
use pmd_protocol::peer::frame::{Echo, Have, Heartbeat, Membership, Prune, Pull, Summary, Tally};
use pmd_protocol::peer::{Frame, NodeId, Stamp, Update, Updates};

use crate::facts::{About, Fact, Facts, Share};
use crate::membership::Identity;
use crate::membership::phi::Phi;
use crate::membership::record::{Record, Standing, pack};
use crate::membership::table::Swim;
use crate::replica::Registry;
use crate::replica::transfer::Transfer;
use crate::tuning::Tuning;

/// Messages that wait for the socket besides what is made when it can take something. They are answers and questions, a
/// few at a time; more only pile up before a peer that does not read, and then the newest are worth most.
pub const MAX_QUEUE: usize = 64;

/// Heartbeats that may still be answered.
const MAX_SENT: usize = 16;
/// Every so many heartbeats one answers the peer's, and the first few of a link do.
const ECHO_EVERY: u32 = 8;
const ECHO_FIRST: u32 = 3;
/// How much later than promised a heartbeat may be that answers the peer's: nothing to phi, and enough for most paths.
const ANSWER_MS: u64 = 40;
/// The slowest pace that there can be: the longest interval ten times over. Who promises less is not waited for longer.
const MAX_PROMISE_MS: u64 = 600_000;
/// Bytes of a list of updates besides the updates.
const LIST_FIXED: usize = 8;

/// A link's number, given by whoever owns the sockets; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One link to a proven peer.
#[derive(Debug)]
pub struct Link {
    /// Who is at the other end.
    pub peer: Identity,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// When it came up; monotonic milliseconds.
    pub since_ms: u64,
    /// The peer's heartbeats.
    pub phi: Phi,
    /// The smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// How many heartbeats in a row had another fingerprint than this daemon.
    pub unequal: u32,
    /// When the next heartbeat is due; monotonic milliseconds.
    pub next_heartbeat_ms: u64,
    /// Heartbeats are due at multiples of their interval, less this: those of all links together, so that a daemon with
    /// nothing to do wakes once for all of them; those of other daemons at other times.
    phase_ms: u64,
    coalesce_ms: u64,
    lazy_ms: u64,
    /// What the peer knows of members.
    known_members: Facts<Record>,
    /// Members of whom it has to be told.
    members: BTreeSet<NodeId>,
    known: Facts<Fact<Stamp>>,
    /// Origins that the peer has asked for and that are not here yet.
    wanted: BTreeSet<NodeId>,
    lazy: BTreeSet<NodeId>,
    dirty: BTreeSet<NodeId>,
    /// Origins of which the peer wants summaries only, and when they are due.
    summaries: BTreeSet<NodeId>,
    summaries_at_ms: u64,
    pulls: BTreeMap<NodeId, Option<Stamp>>,
    grafts: BTreeMap<NodeId, Option<Stamp>>,
    /// Origins whose updates come first on other links, of which the peer has not been told. It is with the next
    /// heartbeat: there is no hurry, and a broadcast is a better time to send updates than to talk about them.
    prunes: BTreeSet<NodeId>,
    /// The same, of which it has been told.
    spares: BTreeSet<NodeId>,
    prune_now: bool,
    queue: VecDeque<Frame>,
    transfer: Option<Transfer>,
    /// Whether a heartbeat is to be sent, and when the next will be.
    heartbeat: Option<u64>,
    beats: u32,
    /// When heartbeats were sent that may still be answered.
    sent_ms: VecDeque<(u8, u64)>,
    heard: Option<(u8, u64)>,
    /// What the peer was told of this daemon's registry, and what it has told of its own.
    told: Option<Summary>,
    summary: Option<Summary>,
    /// Whether a tally is to be sent, and whether it asks for the peer's.
    tally: Option<bool>,
    flush: bool,
    hold_until_ms: u64,
}

impl Link {
    /// A link that has just come up. `phase_ms` is this daemon's own, any number.
    #[must_use]
    pub fn new(peer: Identity, initiated: bool, now_ms: u64, phase_ms: u64, tuning: &Tuning) -> Self {
        Self {
            peer,
            initiated,
            phase_ms,
            since_ms: now_ms,
            phi: Phi::new(tuning.membership.phi, now_ms),
            rtt_us: None,
            unequal: 0,
            next_heartbeat_ms: now_ms,
            coalesce_ms: tuning.spread.coalesce_ms,
            lazy_ms: tuning.spread.lazy_ms,
            known_members: Facts::default(),
            members: BTreeSet::new(),
            known: Facts::default(),
            wanted: BTreeSet::new(),
            lazy: BTreeSet::new(),
            dirty: BTreeSet::new(),
            summaries: BTreeSet::new(),
            summaries_at_ms: 0,
            pulls: BTreeMap::new(),
            grafts: BTreeMap::new(),
            prunes: BTreeSet::new(),
            spares: BTreeSet::new(),
            prune_now: false,
            queue: VecDeque::new(),
            transfer: None,
            heartbeat: None,
            beats: 0,
            sent_ms: VecDeque::new(),
            heard: None,
            told: None,
            summary: None,
            tally: None,
            flush: false,
            hold_until_ms: 0,
        }
    }

    /// The peer knows this of a member, as it says or as it was told.
    pub fn peer_knows(&mut self, record: Arc<Record>) {
        if !self.is_known(record.about(), record.standing()) {
            self.known_members.insert(record);
        }
    }

    /// There is something to tell about a member, unless the peer knows it.
    pub fn tell(&mut self, now_ms: u64, id: NodeId, standing: Standing) {
        if !self.is_known(&id, standing) {
            self.members.insert(id);
            self.wake(now_ms);
        }
    }

    fn is_known(&self, id: &NodeId, standing: Standing) -> bool {
        self.known_members.get(id).is_some_and(|known| known.standing() >= standing)
    }

    /// A member is gone: there is nothing to say about its entries. What the peer has of them is remembered, in case it
    /// comes back.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        self.dirty.remove(origin);
        self.summaries.remove(origin);
        self.wanted.remove(origin);
        self.lazy.remove(origin);
        self.prunes.remove(origin);
        self.spares.remove(origin);
    }

    /// Forgets what the peer knows and has of those of whom nothing is here any more.
    pub fn trim<S: Share>(&mut self, registry: &Registry<S>, swim: &Swim<S>) {
        self.known_members.retain(|known| swim.record(known.about()).is_some());
        self.known.retain(|known| registry.store().stamp(known.about()).is_some());
    }

    /// The peer has this of an origin, as it says or as it was sent.
    pub fn peer_has(&mut self, stamp: Arc<Fact<Stamp>>) {
        if self.known.get(stamp.about()).is_none_or(|known| known.value() < stamp.value()) {
            self.known.insert(stamp);
        }
    }

    /// There is something new of an origin: an update or, where it was pruned, a summary if `summarise`.
    pub fn offer(&mut self, now_ms: u64, origin: NodeId, stamp: Stamp, summarise: bool) {
        self.wanted.remove(&origin);
        if self.known.get(&origin).is_some_and(|known| *known.value() >= stamp) {
            return;
        }
        if self.lazy.contains(&origin) {
            if summarise {
                if self.summaries.is_empty() {
                    self.summaries_at_ms = now_ms.saturating_add(self.lazy_ms);
                }
                self.summaries.insert(origin);
            }
        } else {
            self.dirty.insert(origin);
            self.wake(now_ms);
        }
    }

    /// An origin has come that was not here: only who asked for it gets it, the others ask whom they have heard of it from.
    pub fn offer_wanted(&mut self, now_ms: u64, origin: NodeId) {
        if self.wanted.remove(&origin) {
            self.dirty.insert(origin);
            self.wake(now_ms);
        }
    }

    /// The peer lacks this, whatever the tree says; `have` is what it has.
    pub fn owe(&mut self, origin: NodeId, have: Option<Arc<Fact<Stamp>>>) {
        match have {
            Some(have) => self.known.insert(have),
            None => self.known.remove(&origin),
        };
        self.dirty.insert(origin);
        self.flush = true;
    }

    /// Asks for an origin; with `graft` also for its later updates.
    pub fn pull(&mut self, origin: NodeId, have: Option<Stamp>, graft: bool) {
        if graft {
            self.prunes.remove(&origin);
            self.spares.remove(&origin);
            self.grafts.insert(origin, have);
        } else {
            self.pulls.insert(origin, have);
        }
    }

    /// The peer sent what was here already.
    pub fn prune(&mut self, origin: NodeId) {
        self.prunes.insert(origin);
    }

    /// The peer's news of an origin come first, as it turns out: it is not pruned. `false` if it was told so already.
    pub fn spare(&mut self, origin: &NodeId) -> bool {
        self.prunes.remove(origin);
        !self.spares.contains(origin)
    }

    /// Whether the peer has sent an origin's updates after others, so that there is another way to it.
    #[must_use]
    pub fn is_spare(&self, origin: &NodeId) -> bool {
        self.prunes.contains(origin) || self.spares.contains(origin)
    }

    /// The peer wants summaries of this origin only.
    pub fn pruned(&mut self, origin: NodeId) {
        self.lazy.insert(origin);
    }

    /// The peer wants updates of this origin again.
    pub fn grafted(&mut self, origin: NodeId) {
        self.lazy.remove(&origin);
    }

    /// Sends a message when the socket can take it.
    pub fn send(&mut self, frame: Frame) {
        if self.queue.len() >= MAX_QUEUE {
            self.queue.pop_front();
        }
        self.queue.push_back(frame);
    }

    /// Sends a heartbeat, with what the registry is then; the next in `interval_ms` or sooner.
    pub fn beat(&mut self, now_ms: u64, interval_ms: u64) {
        self.heartbeat = Some(interval_ms);
        let since = now_ms.wrapping_add(self.phase_ms) % interval_ms.max(1);
        self.next_heartbeat_ms = now_ms.saturating_add(interval_ms.max(1) - since);
    }

    /// Answers a heartbeat with the next one of its own, if that is due soon anyway. The answer takes the transport's
    /// acknowledgement along; and as whoever answers waits a little longer the next time, one end goes on to answer the
    /// other and they do not cross.
    pub fn beat_along(&mut self, now_ms: u64, interval_ms: u64) {
        if self.next_heartbeat_ms.saturating_sub(now_ms) <= interval_ms / 2 {
            self.heartbeat = Some(interval_ms);
            let later_ms = interval_ms.saturating_add(ANSWER_MS.min(interval_ms / 2));
            self.next_heartbeat_ms = now_ms.saturating_add(later_ms);
        }
    }

    /// Takes a heartbeat. Whether the round-trip time has changed noticeably.
    pub fn heard(&mut self, now_ms: u64, heartbeat: &Heartbeat) -> bool {
        let promised_ms = u64::from(heartbeat.next_ds).saturating_mul(100);
        self.phi.heartbeat(now_ms, promised_ms.min(MAX_PROMISE_MS));
        self.heard = Some((heartbeat.sequence, now_ms));
        self.summary = heartbeat.summary.or(self.summary);
        let Some(echo) = heartbeat.echo else { return false };
        let Some(sent) =
            self.sent_ms.iter().find(|(sequence, _)| *sequence == echo.sequence).map(|(_, at)| *at)
        else {
            return false;
        };
        self.sent_ms.retain(|(_, at)| *at > sent);
        let trip = now_ms.saturating_sub(sent).saturating_sub(echo.held_ms.into()).saturating_mul(1_000);
        let trip = u32::try_from(trip).unwrap_or(u32::MAX);
        let before = self.rtt_us;
        // RFC 6298, section 2: an eighth of each new measurement.
        let after = before.map_or(trip, |rtt| (rtt - rtt / 8).saturating_add(trip / 8));
        self.rtt_us = Some(after);
        before.is_none_or(|before| before.abs_diff(after) > before / 4)
    }

    /// Says what the registry amounts to without waiting for the next heartbeat, and with `asks` wants to know the same of
    /// the peer. However often this is called: what waits for the socket is one message.
    pub fn tally(&mut self, asks: bool) {
        self.tally = Some(asks || self.tally == Some(true));
    }

    /// Takes what the peer says of its registry. Whether it wants to know the same.
    pub fn tallied(&mut self, tally: &Tally) -> bool {
        self.summary = Some(tally.summary);
        tally.asks
    }

    /// What the peer said last of its registry; `None` if it has not said anything yet.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    /// Whether the peer's registry amounts to the same as this daemon's, by its latest heartbeat.
    #[must_use]
    pub fn agrees(&self, own: &Summary) -> bool {
        self.summary.is_none_or(|summary| summary.fingerprint == own.fingerprint)
    }

    /// Time has come for changes that were gathered.
    pub fn wake(&mut self, now_ms: u64) {
        if self.has_gathered() && now_ms >= self.hold_until_ms {
            self.flush = true;
        }
    }

    /// When [`wake`](Self::wake) has something to do; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let gathered = (!self.flush && self.has_gathered()).then_some(self.hold_until_ms);
        let lazy = (!self.summaries.is_empty()).then_some(self.summaries_at_ms);
        gathered.into_iter().chain(lazy).min()
    }

    fn has_gathered(&self) -> bool {
        !self.dirty.is_empty() || !self.members.is_empty()
    }

    /// The next message, of at most `budget` bytes unless a single operation is longer; what is urgent first.
    pub fn poll<S: Share>(
        &mut self,
        now_ms: u64,
        registry: &Registry<S>,
        swim: &Swim<S>,
        budget: usize,
    ) -> Option<Frame> {
        if let Some(interval_ms) = self.heartbeat.take() {
            self.prune_now = !self.prunes.is_empty();
            return Some(self.heartbeat(now_ms, interval_ms, registry));
        }
        if let Some(frame) = self.queue.pop_front() {
            return Some(frame);
        }
        if let Some(asks) = self.tally.take() {
            let summary = registry.summary();
            self.told = Some(summary);
            return Some(Frame::Tally(Tally { summary, asks }));
        }
        if self.prune_now && !self.prunes.is_empty() {
            let origins = take(&mut self.prunes);
            self.prune_now = !self.prunes.is_empty();
            self.spares.extend(&origins);
            return Some(Frame::Prune(Prune { origins }));
        }
        for (wants, graft) in [(&mut self.grafts, true), (&mut self.pulls, false)] {
            if !wants.is_empty() {
                let later = wants.keys().nth(MAX_STAMPS).copied().map(|key| wants.split_off(&key));
                let wants = std::mem::replace(wants, later.unwrap_or_default()).into_iter().collect();
                return Some(Frame::Pull(Pull { wants, graft }));
            }
        }
        if let Some(update) = self.transfer.as_mut().and_then(|transfer| transfer.next_part(budget)) {
            return Some(Frame::Update(update));
        }
        self.transfer = None;
        if self.flush {
            let news = self.news(swim, budget).or_else(|| self.updates(registry, budget));
            if news.is_some() {
                return news;
            }
            self.flush = false;
            self.hold_until_ms = now_ms.saturating_add(self.coalesce_ms);
        }
        self.summary_of_news(now_ms, registry)
    }

    /// What the peer wants summaries of, once they are due, and does not have by then.
    fn summary_of_news<S: Share>(&mut self, now_ms: u64, registry: &Registry<S>) -> Option<Frame> {
        while !self.summaries.is_empty() && self.summaries_at_ms <= now_ms {
            let origins = take(&mut self.summaries);
            let stamps = origins.into_iter().filter_map(|origin| {
                let stamp = registry.store().stamp(&origin)?;
                self.known.get(&origin).is_none_or(|known| *known.value() < stamp).then_some((origin, stamp))
            });
            let stamps: Vec<_> = stamps.collect();
            if !stamps.is_empty() {
                return Some(Frame::Have(Have { stamps, complete: Vec::new() }));
            }
        }
        None
    }

    /// What the peer does not know of members, before anything else: it asks for their entries then.
    fn news<S: Share>(&mut self, swim: &Swim<S>, budget: usize) -> Option<Frame> {
        let known = &self.known_members;
        self.members.retain(|id| {
            swim.record(id)
                .is_some_and(|record| known.get(id).is_none_or(|known| known.standing() < record.standing()))
        });
        if self.members.is_empty() {
            return None;
        }
        let records: Vec<_> = self.members.iter().filter_map(|id| swim.shared_record(id)).collect();
        let (packet, count) = pack(records.iter().map(|record| &***record), budget);
        for record in records.into_iter().take(count) {
            self.members.remove(record.about());
            // The link delivers in order or ends, so what is sent is as good as there.
            self.known_members.insert(Arc::clone(record));
        }
        Some(Frame::Membership(Membership { packet }))
    }

    fn updates<S: Share>(&mut self, registry: &Registry<S>, budget: usize) -> Option<Frame> {
        let mut updates: Vec<Update> = Vec::new();
        let mut left = budget.saturating_sub(LIST_FIXED);
        while updates.len() < MAX_UPDATES {
            let Some(origin) = self.dirty.pop_first() else { break };
            // What is dead by now is nobody's business.
            if !registry.is_live(&origin) {
                continue;
            }
            let Some(mut transfer) =
                registry.transfer(&origin, self.known.get(&origin).map(|known| *known.value()))
            else {
                if registry.lacks(&origin) {
                    self.wanted.insert(origin);
                }
                continue;
            };
            let Some(update) = transfer.next_part(left) else { continue };
            if !updates.is_empty() && update.size() > left {
                self.dirty.insert(origin);
                break;
            }
            left = left.saturating_sub(update.size());
            self.known.insert(registry.store().shared_stamp(&origin, transfer.stamp()));
            updates.push(update);
            if !transfer.is_done() {
                self.transfer = Some(transfer);
                break;
            }
        }
        match updates.len() {
            0 => None,
            1 => updates.pop().map(Frame::Update),
            _ => Some(Frame::Updates(Updates { updates })),
        }
    }

    fn heartbeat<S: Share>(&mut self, now_ms: u64, interval_ms: u64, registry: &Registry<S>) -> Frame {
        self.beats = self.beats.wrapping_add(1);
        let [.., sequence] = self.beats.to_be_bytes();
        self.sent_ms.push_back((sequence, now_ms));
        if self.sent_ms.len() > MAX_SENT {
            self.sent_ms.pop_front();
        }
        let echo = self
            .heard
            .filter(|_| self.beats <= ECHO_FIRST || self.beats.is_multiple_of(ECHO_EVERY))
            .and_then(|(sequence, at)| {
                Some(Echo { sequence, held_ms: u16::try_from(now_ms.saturating_sub(at)).ok()? })
            });
        let summary = Some(registry.summary()).filter(|summary| self.told != Some(*summary));
        self.told = summary.or(self.told);
        Frame::Heartbeat(Heartbeat {
            sequence,
            next_ds: u16::try_from(interval_ms.saturating_add(50) / 100).unwrap_or(u16::MAX),
            summary,
            echo,
        })
    }
}

/// Takes as many as fit into a frame.
fn take(from: &mut BTreeSet<NodeId>) -> Vec<NodeId> {
    let later = from.iter().nth(MAX_STAMPS).copied().map(|id| from.split_off(&id));
    std::mem::replace(from, later.unwrap_or_default()).into_iter().collect()
}
