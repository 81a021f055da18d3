//! One link, and the state that its peer does not have yet.
//!
//! A link does not queue updates; it remembers what its peer lacks. An update is built when the socket is writable,
//! from the state at that moment. A slow peer therefore gets fewer and fresher updates, uses a bounded amount of
//! memory, and delays no other peer. Only small messages that cannot be rebuilt are queued. If there are too many, the
//! oldest are dropped; everything important is sent again.

mod records;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::limits::{MAX_STAMPS, MAX_UPDATES};
use pmd_protocol::peer::frame::{Have, Heartbeat, Prune, Pull, Summary, Tally};
use pmd_protocol::peer::{Frame, NodeId, Stamp, Update, Updates};

use super::heartbeat::Heartbeats;
use crate::facts::{About, Fact, Facts, Share};
use crate::membership::Identity;
use crate::membership::pace::{Allowance, Pace};
use crate::membership::phi::Phi;
use crate::membership::record::Record;
use crate::membership::table::MemberTable;
use crate::replica::Replica;
use crate::replica::transfer::Transfer;
use crate::tuning::Tuning;

/// The number of messages that may wait for the socket. They are requests and answers, a few at a time. They only pile
/// up if the peer does not read, and then the newest are the most useful.
pub const MAX_QUEUE: usize = 64;

/// How much later than announced a heartbeat may be sent so that it can answer the peer's. It is negligible for phi and
/// long enough for most paths.
const ANSWER_MS: u64 = 40;
/// The longest heartbeat interval that a peer may announce: ten times the longest that can be configured.
const MAX_ANNOUNCED_MS: u64 = 600_000;
/// The overhead of a list of updates, in bytes.
const LIST_FIXED: usize = 8;

/// The number of a link, assigned by the owner of the sockets and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What becomes of updates on a link whose peer has said nothing about their origin.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Whether they are sent.
    pub pushes: bool,
    /// Whether those that are not sent are announced.
    pub summarises: bool,
}

impl Reach {
    /// Updates are sent, or at least announced.
    pub const FULL: Self = Self { pushes: true, summarises: true };
}

/// One link to a proven peer.
#[derive(Debug)]
pub struct Link {
    /// The identity that the peer has proven.
    pub peer: Identity,
    /// The name of the peer's host in the handshake.
    pub host: HostName,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// When the link came up; monotonic milliseconds.
    pub since_ms: u64,
    /// The failure detector for the peer's heartbeats.
    pub phi: Phi,
    /// The smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// Since when the peer's summaries differ from this daemon's; monotonic milliseconds.
    pub unequal_ms: Option<u64>,
    /// When the next heartbeat is due; monotonic milliseconds.
    pub next_heartbeat_ms: u64,
    /// Heartbeats are due at multiples of their interval minus this phase. It is the same for all links of a daemon, so
    /// that an idle daemon wakes up once for all of them, and differs between daemons.
    phase_ms: u64,
    /// How long changes are collected at least, and at most.
    coalesce_ms: (u64, u64),
    lazy_ms: u64,
    /// The member records that the peer has.
    known_members: Facts<Record>,
    /// Members whose records must be sent to the peer.
    members: BTreeSet<NodeId>,
    /// Members that neither the peer knows nor this daemon has reached, so that they have to wait.
    held: BTreeSet<NodeId>,
    /// What is left of the members that may be passed on like that, and the pace at which they may.
    passed_on: (Allowance, Pace),
    /// The versions that the peer has.
    known: Facts<Fact<Stamp>>,
    /// Origins that the peer has requested and this daemon does not have yet.
    wanted: BTreeSet<NodeId>,
    /// Origins whose updates the peer has asked for, whatever is sent by default.
    eager: BTreeSet<NodeId>,
    /// Origins for which the peer wants only summaries.
    lazy: BTreeSet<NodeId>,
    /// Origins whose updates must be sent.
    dirty: BTreeSet<NodeId>,
    /// Origins whose summaries must be sent.
    summaries: BTreeSet<NodeId>,
    summaries_at_ms: u64,
    pulls: BTreeMap<NodeId, Option<Stamp>>,
    grafts: BTreeMap<NodeId, Option<Stamp>>,
    /// Origins whose updates arrive first on other links, of which the peer has not been told yet. It is told with the
    /// next heartbeat, because this is not urgent and would only add load during a broadcast.
    to_prune: BTreeSet<NodeId>,
    /// The origins that the peer was asked to prune.
    pruned: BTreeSet<NodeId>,
    prune_now: bool,
    queue: VecDeque<Frame>,
    transfer: Option<Transfer>,
    /// The interval to announce in a heartbeat that must be sent.
    heartbeat: Option<u64>,
    heartbeats: Heartbeats,
    /// The last summary sent to the peer, and the last one received.
    sent_summary: Option<Summary>,
    peer_summary: Option<Summary>,
    /// Whether a tally that must be sent asks for the peer's; `None` if none must be sent.
    tally: Option<bool>,
    flush: bool,
    hold_until_ms: u64,
    /// How long changes are collected after this batch.
    hold_ms: u64,
}

impl Link {
    /// A link that has just come up. `phase_ms` is an arbitrary number that is the same for all links of this daemon.
    #[must_use]
    pub fn new(
        (peer, host): (Identity, HostName),
        initiated: bool,
        now_ms: u64,
        phase_ms: u64,
        tuning: &Tuning,
    ) -> Self {
        Self {
            peer,
            host,
            initiated,
            phase_ms,
            since_ms: now_ms,
            phi: Phi::new(tuning.membership.phi, now_ms),
            rtt_us: None,
            unequal_ms: None,
            next_heartbeat_ms: now_ms,
            coalesce_ms: (tuning.gossip.coalesce_ms, tuning.gossip.coalesce_max_ms),
            lazy_ms: tuning.gossip.lazy_ms,
            known_members: Facts::default(),
            members: BTreeSet::new(),
            held: BTreeSet::new(),
            passed_on: (Allowance::default(), Pace::passed_on(&tuning.membership)),
            known: Facts::default(),
            wanted: BTreeSet::new(),
            eager: BTreeSet::new(),
            lazy: BTreeSet::new(),
            dirty: BTreeSet::new(),
            summaries: BTreeSet::new(),
            summaries_at_ms: 0,
            pulls: BTreeMap::new(),
            grafts: BTreeMap::new(),
            to_prune: BTreeSet::new(),
            pruned: BTreeSet::new(),
            prune_now: false,
            queue: VecDeque::new(),
            transfer: None,
            heartbeat: None,
            heartbeats: Heartbeats::default(),
            sent_summary: None,
            peer_summary: None,
            tally: None,
            flush: false,
            hold_until_ms: 0,
            hold_ms: 0,
        }
    }

    /// Stops sending entries of a member that is down. What the peer has of them is remembered, in case the member
    /// comes back.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        self.dirty.remove(origin);
        self.summaries.remove(origin);
        self.wanted.remove(origin);
        self.eager.remove(origin);
        self.lazy.remove(origin);
        self.to_prune.remove(origin);
        self.pruned.remove(origin);
    }

    /// Forgets what the peer knows about members and origins that this daemon has forgotten.
    pub fn trim<S: Share>(&mut self, replica: &Replica<S>, table: &MemberTable<S>) {
        self.known_members.retain(|known| table.record(known.about()).is_some());
        self.held.retain(|id| table.record(id).is_some());
        self.known.retain(|known| replica.store().stamp(known.about()).is_some());
    }

    /// Notes that the peer has this version of an origin.
    pub fn peer_has(&mut self, stamp: Arc<Fact<Stamp>>) {
        if self.known.get(stamp.about()).is_none_or(|known| known.value() < stamp.value()) {
            self.known.insert(stamp);
        }
    }

    /// Offers the current version of an origin: sends an update or, if the peer does not want it pushed, a summary or
    /// nothing.
    pub fn offer(&mut self, now_ms: u64, origin: NodeId, stamp: Stamp, reach: Reach) {
        self.wanted.remove(&origin);
        if self.known.get(&origin).is_some_and(|known| *known.value() >= stamp) {
            return;
        }
        let pushes = self.eager.contains(&origin) || (reach.pushes && !self.lazy.contains(&origin));
        if pushes {
            self.dirty.insert(origin);
            self.flush_gathered(now_ms);
        } else if reach.summarises {
            if self.summaries.is_empty() {
                self.summaries_at_ms = now_ms.saturating_add(self.lazy_ms);
            }
            self.summaries.insert(origin);
        }
    }

    /// Sends an origin that was missing until now if the peer requested it. Other peers request it from whoever
    /// announces it.
    pub fn offer_wanted(&mut self, now_ms: u64, origin: NodeId) {
        if self.wanted.remove(&origin) {
            self.dirty.insert(origin);
            self.flush_gathered(now_ms);
        }
    }

    /// Sends an origin to the peer even if the peer has pruned it; `have` is the version that the peer has.
    pub fn push(&mut self, origin: NodeId, have: Option<Arc<Fact<Stamp>>>) {
        match have {
            Some(have) => self.known.insert(have),
            None => self.known.remove(&origin),
        };
        self.dirty.insert(origin);
        self.flush = true;
    }

    /// Requests an origin from the peer and, with `graft`, its later updates.
    pub fn pull(&mut self, origin: NodeId, have: Option<Stamp>, graft: bool) {
        if graft {
            self.to_prune.remove(&origin);
            self.pruned.remove(&origin);
            self.grafts.insert(origin, have);
        } else {
            self.pulls.insert(origin, have);
        }
    }

    /// Asks the peer not to push an origin whose update arrived first on another link.
    pub fn prune(&mut self, origin: NodeId) {
        self.to_prune.insert(origin);
    }

    /// Cancels a prune, because this link was the first after all. Returns `false` if the peer was already told.
    pub fn cancel_prune(&mut self, origin: &NodeId) -> bool {
        self.to_prune.remove(origin);
        !self.pruned.contains(origin)
    }

    /// Whether an origin was pruned here by either side, so that the peer receives it on another path.
    #[must_use]
    pub fn is_backup_for(&self, origin: &NodeId) -> bool {
        [&self.to_prune, &self.pruned, &self.lazy].iter().any(|pruned| pruned.contains(origin))
    }

    /// Notes that the peer wants only summaries of this origin.
    pub fn make_lazy(&mut self, origin: NodeId) {
        self.eager.remove(&origin);
        self.lazy.insert(origin);
    }

    /// Notes that the peer wants updates of this origin.
    pub fn make_eager(&mut self, origin: NodeId) {
        self.lazy.remove(&origin);
        self.eager.insert(origin);
    }

    /// Sends a message once the socket is writable.
    pub fn send(&mut self, frame: Frame) {
        if self.queue.len() >= MAX_QUEUE {
            self.queue.pop_front();
        }
        self.queue.push_back(frame);
    }

    /// Sends a heartbeat with the summary at that time. The next is due in `interval_ms` or sooner.
    pub fn send_heartbeat(&mut self, now_ms: u64, interval_ms: u64) {
        self.release_held(now_ms);
        self.heartbeat = Some(interval_ms);
        let since = now_ms.wrapping_add(self.phase_ms) % interval_ms.max(1);
        self.next_heartbeat_ms = now_ms.saturating_add(interval_ms.max(1) - since);
    }

    /// Answers a heartbeat with this daemon's next one, if that is due soon anyway. The transport's acknowledgement
    /// then travels with the answer. The answering side waits a little longer the next time, so that one side keeps
    /// answering the other and their heartbeats do not cross.
    pub fn answer_heartbeat(&mut self, now_ms: u64, interval_ms: u64) {
        if self.next_heartbeat_ms.saturating_sub(now_ms) <= interval_ms / 2 {
            self.heartbeat = Some(interval_ms);
            let later_ms = interval_ms.saturating_add(ANSWER_MS.min(interval_ms / 2));
            self.next_heartbeat_ms = now_ms.saturating_add(later_ms);
        }
    }

    /// Handles a heartbeat. Returns the round-trip time in milliseconds if it was measured, and whether it has changed
    /// noticeably.
    pub fn handle_heartbeat(&mut self, now_ms: u64, heartbeat: &Heartbeat) -> (Option<u64>, bool) {
        let announced_ms = u64::from(heartbeat.next_ds).saturating_mul(100);
        self.phi.heartbeat(now_ms, announced_ms.min(MAX_ANNOUNCED_MS));
        self.peer_summary = heartbeat.summary.or(self.peer_summary);
        let trip_ms = self.heartbeats.received(now_ms, heartbeat.sequence, heartbeat.echo);
        let Some(trip_ms) = trip_ms else { return (None, false) };
        let trip = u32::try_from(trip_ms.saturating_mul(1_000)).unwrap_or(u32::MAX);
        let before = self.rtt_us;
        // RFC 6298, section 2: an eighth of each new measurement.
        let after = before.map_or(trip, |rtt| (rtt - rtt / 8).saturating_add(trip / 8));
        self.rtt_us = Some(after);
        (Some(trip_ms), before.is_none_or(|before| before.abs_diff(after) > before / 4))
    }

    /// Sends a summary of the registry without waiting for the next heartbeat and, with `asks`, asks for the peer's. At
    /// most one such message waits for the socket, however often this is called.
    pub fn send_tally(&mut self, asks: bool) {
        self.tally = Some(asks || self.tally == Some(true));
    }

    /// Handles a tally. Returns whether the peer asks for one.
    pub fn handle_tally(&mut self, tally: &Tally) -> bool {
        self.peer_summary = Some(tally.summary);
        tally.asks
    }

    /// How many facts about members and origins this link remembers.
    #[must_use]
    pub fn remembered(&self) -> usize {
        let members = self.known_members.len() + self.held.len();
        members + self.known.len() + self.eager.len() + self.lazy.len() + self.wanted.len() + self.dirty.len()
    }

    /// The latest summary of the peer's registry, if any.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        self.peer_summary
    }

    /// Whether the peer's registry equals this daemon's, by its latest summary.
    #[must_use]
    pub fn agrees(&self, own: &Summary) -> bool {
        self.peer_summary.is_none_or(|summary| summary.fingerprint == own.fingerprint)
    }

    /// Sends collected changes if they have waited long enough.
    pub fn flush_gathered(&mut self, now_ms: u64) {
        if !self.flush && self.has_gathered() && now_ms >= self.hold_until_ms {
            let (least_ms, most_ms) = self.coalesce_ms;
            let follows = now_ms < self.hold_until_ms.saturating_add(self.hold_ms);
            self.hold_ms = if follows { self.hold_ms.saturating_mul(2).min(most_ms) } else { least_ms };
            self.flush = true;
        }
    }

    /// When collected changes or summaries are due; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let gathered = (!self.flush && self.has_gathered()).then_some(self.hold_until_ms);
        let lazy = (!self.summaries.is_empty()).then_some(self.summaries_at_ms);
        gathered.into_iter().chain(lazy).min()
    }

    fn has_gathered(&self) -> bool {
        !self.dirty.is_empty() || !self.members.is_empty()
    }

    /// The next message, most urgent first. It has at most `budget` bytes unless a single operation is longer. After
    /// changes, the next ones are collected `crowd` times as long as usual.
    pub fn poll<S: Share>(
        &mut self,
        now_ms: u64,
        replica: &Replica<S>,
        table: &MemberTable<S>,
        (budget, crowd): (usize, u64),
    ) -> Option<Frame> {
        if let Some(interval_ms) = self.heartbeat.take() {
            self.prune_now = !self.to_prune.is_empty();
            return Some(self.next_heartbeat(now_ms, interval_ms, replica.summary()));
        }
        if let Some(frame) = self.queue.pop_front() {
            return Some(frame);
        }
        if let Some(asks) = self.tally.take() {
            let summary = replica.summary();
            self.sent_summary = Some(summary);
            return Some(Frame::Tally(Tally { summary, asks }));
        }
        if self.prune_now && !self.to_prune.is_empty() {
            let origins = take_stamps(&mut self.to_prune);
            self.prune_now = !self.to_prune.is_empty();
            self.pruned.extend(&origins);
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
            // Members come first, because the peer requests the entries of members that are new to it.
            let news =
                self.next_records(now_ms, table, budget).or_else(|| self.next_updates(replica, budget));
            if news.is_some() {
                return news;
            }
            self.flush = false;
            self.hold_until_ms = now_ms.saturating_add(self.hold_ms.saturating_mul(crowd));
        }
        self.next_summaries(now_ms, replica)
    }

    /// The summaries that are due, of origins that the peer still lacks.
    fn next_summaries<S: Share>(&mut self, now_ms: u64, replica: &Replica<S>) -> Option<Frame> {
        while !self.summaries.is_empty() && self.summaries_at_ms <= now_ms {
            let origins = take_stamps(&mut self.summaries);
            let stamps = origins.into_iter().filter_map(|origin| {
                let stamp = replica.store().stamp(&origin)?;
                self.known.get(&origin).is_none_or(|known| *known.value() < stamp).then_some((origin, stamp))
            });
            let stamps: Vec<_> = stamps.collect();
            if !stamps.is_empty() {
                return Some(Frame::Have(Have { stamps, complete: Vec::new() }));
            }
        }
        None
    }

    fn next_updates<S: Share>(&mut self, replica: &Replica<S>, budget: usize) -> Option<Frame> {
        let mut updates: Vec<Update> = Vec::new();
        let mut left = budget.saturating_sub(LIST_FIXED);
        while updates.len() < MAX_UPDATES {
            let Some(origin) = self.dirty.pop_first() else { break };
            if !replica.is_live(&origin) {
                continue;
            }
            let known = self.known.get(&origin).map(|known| *known.value());
            let Some(mut transfer) = replica.transfer(&origin, known) else {
                if replica.lacks(&origin) {
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
            self.known.insert(replica.store().shared_stamp(&origin, transfer.stamp()));
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

    fn next_heartbeat(&mut self, now_ms: u64, interval_ms: u64, own: Summary) -> Frame {
        let (sequence, echo) = self.heartbeats.next(now_ms);
        let summary = Some(own).filter(|summary| self.sent_summary != Some(*summary));
        self.sent_summary = summary.or(self.sent_summary);
        let next_ds = u16::try_from(interval_ms.saturating_add(50) / 100).unwrap_or(u16::MAX);
        Frame::Heartbeat(Heartbeat { sequence, next_ds, summary, echo })
    }
}

/// Removes as many origins as fit into a frame.
fn take_stamps(from: &mut BTreeSet<NodeId>) -> Vec<NodeId> {
    let later = from.iter().nth(MAX_STAMPS).copied().map(|id| from.split_off(&id));
    std::mem::replace(from, later.unwrap_or_default()).into_iter().collect()
}
