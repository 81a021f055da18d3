//! What there is to say on one link.
//!
//! Not a queue of messages but a memory of what the peer lacks. An update is written when the socket can take it, from
//! the state of that moment; a peer that reads slowly gets fewer and fresher updates, costs a bounded amount of memory,
//! and slows nobody. Only small messages that cannot be made again are queued, and the oldest go when there are too many:
//! all of them are repeated if they matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pmd_protocol::limits::MAX_STAMPS;
use pmd_protocol::peer::frame::{Echo, Have, Heartbeat, Prune, Pull};
use pmd_protocol::peer::{Digest, Frame, NodeId, Stamp};

use crate::membership::Identity;
use crate::membership::phi::Phi;
use crate::registry::Registry;
use crate::registry::transfer::Transfer;
use crate::tuning::Tuning;

/// Messages that wait for the socket besides updates. Membership packets are at most a few in each period; more only
/// pile up before a peer that does not read, and then the newest are worth most.
pub const MAX_QUEUE: usize = 64;

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
    coalesce_ms: u64,
    known: BTreeMap<NodeId, Stamp>,
    lazy: BTreeSet<NodeId>,
    dirty: BTreeSet<NodeId>,
    summaries: BTreeSet<NodeId>,
    pulls: BTreeMap<NodeId, Option<Stamp>>,
    grafts: BTreeMap<NodeId, Option<Stamp>>,
    prunes: BTreeSet<NodeId>,
    queue: VecDeque<Frame>,
    transfer: Option<Transfer>,
    heartbeat: bool,
    sequence: u32,
    /// When heartbeats were sent that may still be answered.
    sent_ms: VecDeque<(u32, u64)>,
    heard: Option<(u32, u64)>,
    /// The fingerprint in its last heartbeat.
    told: Option<Digest>,
    flush: bool,
    hold_until_ms: u64,
}

impl Link {
    /// A link that has just come up.
    #[must_use]
    pub fn new(peer: Identity, initiated: bool, now_ms: u64, tuning: &Tuning) -> Self {
        Self {
            peer,
            initiated,
            since_ms: now_ms,
            phi: Phi::new(tuning.membership.phi, now_ms),
            rtt_us: None,
            unequal: 0,
            next_heartbeat_ms: now_ms,
            coalesce_ms: tuning.spread.coalesce_ms,
            known: BTreeMap::new(),
            lazy: BTreeSet::new(),
            dirty: BTreeSet::new(),
            summaries: BTreeSet::new(),
            pulls: BTreeMap::new(),
            grafts: BTreeMap::new(),
            prunes: BTreeSet::new(),
            queue: VecDeque::new(),
            transfer: None,
            heartbeat: false,
            sequence: 0,
            sent_ms: VecDeque::new(),
            heard: None,
            told: None,
            flush: false,
            hold_until_ms: 0,
        }
    }

    /// The peer has this of an origin, as it says or as it was sent.
    pub fn peer_has(&mut self, origin: NodeId, stamp: Stamp) {
        let known = self.known.entry(origin).or_insert(stamp);
        *known = stamp.max(*known);
    }

    /// There is something new of an origin: an update or, where it was pruned, a summary.
    pub fn offer(&mut self, now_ms: u64, origin: NodeId, stamp: Stamp) {
        if self.known.get(&origin).is_some_and(|known| *known >= stamp) {
            return;
        }
        if self.lazy.contains(&origin) { &mut self.summaries } else { &mut self.dirty }.insert(origin);
        self.wake(now_ms);
    }

    /// The peer lacks this, whatever the tree says; `have` is what it has.
    pub fn owe(&mut self, origin: NodeId, have: Option<Stamp>) {
        match have {
            Some(have) => self.known.insert(origin, have),
            None => self.known.remove(&origin),
        };
        self.dirty.insert(origin);
        self.flush = true;
    }

    /// Asks for an origin; with `graft` also for its later updates.
    pub fn pull(&mut self, origin: NodeId, have: Option<Stamp>, graft: bool) {
        if graft { &mut self.grafts } else { &mut self.pulls }.insert(origin, have);
    }

    /// The peer sent what was here already.
    pub fn prune(&mut self, origin: NodeId) {
        self.prunes.insert(origin);
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

    /// Sends a heartbeat, with what the registry is then.
    pub fn beat(&mut self, now_ms: u64, interval_ms: u64) {
        self.heartbeat = true;
        self.next_heartbeat_ms = now_ms.saturating_add(interval_ms);
    }

    /// Takes a heartbeat. Whether the round-trip time has changed noticeably.
    pub fn heard(&mut self, now_ms: u64, heartbeat: &Heartbeat) -> bool {
        self.phi.heartbeat(now_ms);
        self.heard = Some((heartbeat.sequence, now_ms));
        self.told = Some(heartbeat.fingerprint);
        let Some(echo) = heartbeat.echo else { return false };
        let Some(sent) =
            self.sent_ms.iter().find(|(sequence, _)| *sequence == echo.sequence).map(|(_, at)| *at)
        else {
            return false;
        };
        self.sent_ms.retain(|(_, at)| *at > sent);
        let trip = now_ms.saturating_sub(sent).saturating_mul(1_000).saturating_sub(echo.held_us.into());
        let trip = u32::try_from(trip).unwrap_or(u32::MAX);
        let before = self.rtt_us;
        // RFC 6298, section 2: an eighth of each new measurement.
        let after = before.map_or(trip, |rtt| (rtt - rtt / 8).saturating_add(trip / 8));
        self.rtt_us = Some(after);
        before.is_none_or(|before| before.abs_diff(after) > before / 4)
    }

    /// Whether the peer said last that its registry has this fingerprint; `None` if it has not said anything yet.
    #[must_use]
    pub fn agrees(&self, own: &Digest) -> Option<bool> {
        self.told.map(|told| told == *own)
    }

    /// Time has come for changes that were gathered.
    pub fn wake(&mut self, now_ms: u64) {
        let gathered = !self.dirty.is_empty() || !self.summaries.is_empty();
        if gathered && now_ms >= self.hold_until_ms {
            self.flush = true;
        }
    }

    /// When [`wake`](Self::wake) has something to do; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let gathered = !self.dirty.is_empty() || !self.summaries.is_empty();
        (gathered && !self.flush).then_some(self.hold_until_ms)
    }

    /// The next message, of at most `budget` bytes unless a single operation is longer; what is urgent first.
    pub fn poll(&mut self, now_ms: u64, registry: &Registry, budget: usize) -> Option<Frame> {
        if std::mem::take(&mut self.heartbeat) {
            return Some(self.heartbeat(now_ms, registry));
        }
        if let Some(frame) = self.queue.pop_front() {
            return Some(frame);
        }
        if !self.prunes.is_empty() {
            return Some(Frame::Prune(Prune { origins: take(&mut self.prunes) }));
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
        if !self.flush {
            return None;
        }
        while let Some(origin) = self.dirty.pop_first() {
            // What is dead by now is nobody's business.
            if !registry.is_live(&origin) {
                continue;
            }
            let Some(mut transfer) = registry.transfer(&origin, self.known.get(&origin).copied()) else {
                continue;
            };
            // The link delivers in order or ends, so what is sent is as good as there.
            self.known.insert(origin, transfer.stamp());
            let update = transfer.next_part(budget)?;
            self.transfer = Some(transfer).filter(|transfer| !transfer.is_done());
            return Some(Frame::Update(update));
        }
        if !self.summaries.is_empty() {
            let stamps = take(&mut self.summaries);
            let stamps =
                stamps.into_iter().filter_map(|origin| Some((origin, registry.store().stamp(&origin)?)));
            return Some(Frame::Have(Have { stamps: stamps.collect(), complete: Vec::new() }));
        }
        self.flush = false;
        self.hold_until_ms = now_ms.saturating_add(self.coalesce_ms);
        None
    }

    fn heartbeat(&mut self, now_ms: u64, registry: &Registry) -> Frame {
        self.sequence = self.sequence.wrapping_add(1);
        self.sent_ms.push_back((self.sequence, now_ms));
        if self.sent_ms.len() > 16 {
            self.sent_ms.pop_front();
        }
        let echo = self.heard.take().map(|(sequence, at)| Echo {
            sequence,
            held_us: u32::try_from(now_ms.saturating_sub(at).saturating_mul(1_000)).unwrap_or(u32::MAX),
        });
        let members = u32::try_from(registry.live().count()).unwrap_or(u32::MAX);
        Frame::Heartbeat(Heartbeat {
            sequence: self.sequence,
            fingerprint: registry.fingerprint(),
            members,
            echo,
        })
    }
}

/// Takes as many as fit into a frame.
fn take(from: &mut BTreeSet<NodeId>) -> Vec<NodeId> {
    let later = from.iter().nth(MAX_STAMPS).copied().map(|id| from.split_off(&id));
    std::mem::replace(from, later.unwrap_or_default()).into_iter().collect()
}
