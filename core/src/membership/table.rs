//! The members of the cluster.
//!
//! The rules are those of SWIM (A. Das, I. Gupta, A. Motivala, "SWIM: Scalable Weakly-consistent Infection-style
//! Process Group Membership Protocol", 2002, section 4): a member that cannot be reached is suspected, and is down
//! unless it refutes the suspicion in time. Only the member itself may raise its incarnation.
//!
//! ```text
//!             not reached                           not refuted in time
//!   Alive ───────────────────────────▶ Suspect ─────────────────────────────▶ Down
//!     ▲                                   │                                     │
//!     └───── refuted: higher incarnation ─┘                                     │
//!     └──────── came back: later generation, or the same one renewed ──────────┘
//! ```
//!
//! Where SWIM relies on random probes, pmd uses its links. SWIM probes a random member in each period; here every
//! member receives heartbeats from ten others, probes a silent one at once ([`evidence`](super::evidence)), and
//! occasionally dials a member that it has no link to. SWIM piggybacks news on its probes; here news travels over the
//! links of the overlay, and each link remembers what its peer knows, as it does for the registry. An idle cluster of
//! any size therefore sends nothing about its members, and news takes a few hops instead of several periods.
//!
//! What a member says about itself is signed, and [`MemberTable::merge`] has the signature checked before it applies the
//! statement. What others say about it is an accusation: a member that somebody calls dead is suspected here and has
//! [`refute_wait_ms`](MembershipTuning::refute_wait_ms) to object, so that one daemon cannot remove another by its word.
//!
//! Anybody who knows the cluster secret can sign for as many keys as it makes. What a peer [introduces](super::introductions)
//! is therefore limited, and members that this daemon has never reached itself give way to those that it has.
//!
//! Tables merge like replicas: the record of a member with the greater [`Standing`] counts, regardless of the order in
//! which records arrive and how often.

mod reached;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use pmd_protocol::peer::{Attestation, Generation, NodeId, PublicKey};

use super::dead::Dead;
use super::event::MembershipEvent;
use super::identity::Identity;
use super::introductions::Introductions;
use super::judge::{Judge, Merged};
use super::record::{Liveness, Record, RecordError, Standing, State, decode};
use crate::facts::{Facts, Share, Unshared};
use crate::tuning::MembershipTuning;

/// The capacity that an empty event queue keeps. More was only needed for a burst.
const MAX_IDLE_EVENTS: usize = 64;

/// The members known to one daemon, see the module documentation.
#[derive(Debug)]
pub struct MemberTable<S = Unshared> {
    own: Arc<Record>,
    tuning: MembershipTuning,
    records: Facts<Record>,
    share: S,
    live: usize,
    dead: Dead,
    /// Members that this daemon has reached itself, in whatever generation.
    reached: BTreeSet<NodeId>,
    introductions: Introductions,
    suspicions: BTreeMap<NodeId, Suspicion>,
    /// Members that are down whatever they say.
    expelled: BTreeSet<NodeId>,
    events: VecDeque<MembershipEvent>,
}

/// A member is down at this time unless its record changes before.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since_ms: u64,
    due_ms: u64,
    standing: Standing,
}

impl<S: Share> MemberTable<S> {
    /// The table of a daemon that knows no other member.
    #[must_use]
    pub fn new(identity: Identity, key: PublicKey, tuning: MembershipTuning, share: S) -> Self {
        Self {
            own: Arc::new(Record::alive(identity, key)),
            tuning,
            records: Facts::default(),
            share,
            live: 0,
            dead: Dead::default(),
            reached: BTreeSet::new(),
            introductions: Introductions::default(),
            suspicions: BTreeMap::new(),
            expelled: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// The current identity of this daemon.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.own.identity
    }

    /// The live members besides this one, by id.
    pub fn members(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.records.iter().filter_map(|record| Some((&record.identity, record.liveness()?)))
    }

    /// A live member.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<(&Identity, Liveness)> {
        let record = self.records.get(id)?;
        Some((&record.identity, record.liveness()?))
    }

    /// The ids of all other members that are remembered, dead or alive, and whether they have left.
    pub fn known(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.records.iter().map(|record| (record.identity.id, record.state == State::Left))
    }

    /// The record of a member or of this daemon, dead or alive.
    #[must_use]
    pub fn record(&self, id: &NodeId) -> Option<&Record> {
        self.shared_record(id).map(AsRef::as_ref)
    }

    /// Like [`record`](Self::record), as a pointer that links can share.
    #[must_use]
    pub fn shared_record(&self, id: &NodeId) -> Option<&Arc<Record>> {
        if *id == self.own.identity.id { Some(&self.own) } else { self.records.get(id) }
    }

    /// The number of live members besides this one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there are no live members besides this one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Merges encoded records of another daemon.
    ///
    /// # Errors
    ///
    /// If they are malformed or forged. The records before the wrong one have been merged.
    pub fn merge<G, F>(
        &mut self,
        now_ms: u64,
        records: &[u8],
        judge: &Judge<G, F>,
    ) -> Result<Merged, RecordError>
    where
        G: Fn(&Record) -> bool,
        F: Fn(&NodeId) -> bool,
    {
        let mut merged = Merged::default();
        for record in decode(records)? {
            let id = record.identity.id;
            if self.expelled.contains(&id) {
                continue;
            }
            let known = self.shared_record(&id).cloned();
            let is_introduced = known.is_none() && record.is_live() && !self.reached.contains(&id);
            if is_introduced && !self.may_introduce(now_ms, judge.introducer) {
                merged.refused += 1;
                continue;
            }
            let is_news =
                known.as_ref().is_none_or(|known| record.statement_order() > known.statement_order());
            if is_news && !(judge.is_genuine)(&record) {
                return Err(RecordError::Forged(id));
            }
            if id != self.own.identity.id && record.identity.generation.boot_ms > judge.latest_ms {
                merged.future.push(id);
                continue;
            }
            let wait_ms = self.suspicion_ms();
            let Some(known) = known.filter(|known| known.is_live()) else {
                merged.known.push(self.merge_record(now_ms, record, wait_ms));
                continue;
            };
            // First what the member says itself, then what others say about that.
            let state = record.state;
            let stated = if state == State::Left { State::Left } else { State::Alive };
            let news = is_news
                .then(|| self.merge_record(now_ms, Record { state: stated, ..record.clone() }, wait_ms));
            let latest = self.record(&id).map(Record::statement_order);
            if state != stated && latest.is_none_or(|latest| record.statement_order() >= latest) {
                self.accuse(now_ms, &id, state, judge, &mut merged);
            }
            // Only the signed parts of news were checked. What is no news is not stored but for its place in the order. Most of
            // what peers tell is known in every detail: then there is nothing to store at all.
            let mut same = news.into_iter().chain([Arc::clone(&known)]);
            let same = same.find(|same| same.standing() == record.standing());
            merged.known.push(same.unwrap_or_else(|| {
                let theirs = if is_news { record } else { record.with_statement_of(&known) };
                self.share.share(&id, theirs)
            }));
        }
        Ok(merged)
    }

    /// Merges what others say about the latest statement of a live member.
    fn accuse<G, F: Fn(&NodeId) -> bool>(
        &mut self,
        now_ms: u64,
        id: &NodeId,
        state: State,
        judge: &Judge<G, F>,
        merged: &mut Merged,
    ) {
        let Some(known) = self.shared_record(id).filter(|known| known.state < state).cloned() else { return };
        let accused = Record { state, ..Record::clone(&known) };
        let is_own = *id == self.own.identity.id;
        if !is_own && (judge.is_heard)(id) {
            merged.refuted.push(Arc::new(accused));
            return;
        }
        if is_own || state == State::Suspect {
            self.merge_record(now_ms, accused, self.suspicion_ms());
            return;
        }
        // It is down unless it refutes that. The time in which it was suspected before counts.
        let wait_ms = self.tuning.refute_wait_ms;
        match self.suspicions.get_mut(id) {
            Some(suspicion) => {
                let due_ms = suspicion.since_ms.saturating_add(wait_ms).max(now_ms);
                suspicion.due_ms = suspicion.due_ms.min(due_ms);
            }
            None => {
                let suspect = Record { state: State::Suspect, ..accused };
                self.merge_record(now_ms, suspect, wait_ms);
            }
        }
    }

    /// Suspects a member that could not be reached. It will be down in `wait_ms` unless it refutes the suspicion.
    /// Returns whether it is a live member in this generation that was not suspected before.
    pub fn suspect(&mut self, now_ms: u64, id: &NodeId, generation: Generation, wait_ms: u64) -> bool {
        let known = self.records.get(id).filter(|record| record.identity.generation == generation);
        let Some(record) = known else { return false };
        match record.state {
            State::Alive => {
                let record = Record { state: State::Suspect, ..Record::clone(record) };
                self.merge_record(now_ms, record, wait_ms);
                true
            }
            State::Suspect => {
                // It is already suspected, but a shorter wait may apply now.
                if let Some(suspicion) = self.suspicions.get_mut(id) {
                    suspicion.due_ms = suspicion.due_ms.min(now_ms.saturating_add(wait_ms));
                }
                false
            }
            State::Down | State::Left => false,
        }
    }

    /// Declares a member dead, and ignores whatever is said about it until it is [readmitted](Self::readmit). This daemon
    /// itself cannot be expelled from its own table.
    pub fn expel(&mut self, now_ms: u64, id: NodeId) {
        if id == self.own.identity.id {
            return;
        }
        self.expelled.insert(id);
        if let Some(record) = self.records.get(&id).filter(|record| record.is_live()) {
            let record = Record { state: State::Down, ..Record::clone(record) };
            self.merge_record(now_ms, record, 0);
        }
    }

    /// Lets an expelled member return.
    pub fn readmit(&mut self, id: &NodeId) {
        self.expelled.remove(id);
    }

    /// Renews the identity of this daemon, because others consider it dead.
    pub fn renew(&mut self) {
        self.renew_after(self.own.identity.renewal);
    }

    /// How long a suspect has to refute, in milliseconds.
    #[must_use]
    pub fn suspicion_ms(&self) -> u64 {
        let members = u32::try_from(self.live).unwrap_or(u32::MAX).saturating_add(1);
        let periods = self.tuning.suspicion_periods.clamp(1.0, 1_000.0) * f64::from(members).log10().max(1.0);
        millis(self.tuning.probe_period_ms, periods)
    }

    /// Begins a new generation without a restart, because others know operations of the current one that this daemon
    /// does not, see [`MembershipEvent::LaterGeneration`].
    pub fn begin_generation(&mut self, generation: Generation) {
        let identity = Identity { generation, renewal: 0, ..self.own.identity.clone() };
        self.set_own(Record::alive(identity, self.own.key.clone()));
    }

    /// Advertises new addresses of this daemon. Returns whether they have changed.
    pub fn advertise(&mut self, addresses: &[SocketAddr]) -> bool {
        let own = &self.own.identity;
        let moved = Identity::new(own.id, own.generation, addresses);
        if !self.own.is_live() || moved.addresses == own.addresses {
            return false;
        }
        let renewal = own.renewal.saturating_add(1);
        self.set_own(Record::alive(Identity { renewal, ..moved }, self.own.key.clone()));
        true
    }

    /// Sets a member's signature of the statement that the table has, or this daemon's own.
    pub fn attest(&mut self, id: &NodeId, attestation: Attestation) {
        let Some(record) = self.shared_record(id).filter(|record| record.attestation != attestation) else {
            return;
        };
        let record = Record { attestation, ..Record::clone(record) };
        if *id == self.own.identity.id {
            self.own = Arc::new(record);
        } else {
            self.records.insert(self.share.share(id, record));
        }
    }

    /// Tells the other members that this daemon leaves. The table must not be used after that.
    pub fn leave(&mut self) {
        self.set_own(Record { state: State::Left, ..Record::clone(&self.own) });
    }

    /// Ends suspicions that have timed out and forgets old records. `now_ms` is monotonic.
    ///
    /// The `lag_ms` during which this daemon was not running do not count, because a refutation may be waiting to be
    /// read.
    pub fn handle_timeout(&mut self, now_ms: u64, lag_ms: u64) {
        for suspicion in self.suspicions.values_mut() {
            suspicion.due_ms = suspicion.due_ms.saturating_add(lag_ms);
        }
        let due: Vec<_> = self
            .suspicions
            .iter()
            .filter(|(_, suspicion)| suspicion.due_ms <= now_ms)
            .map(|(id, suspicion)| (*id, suspicion.standing))
            .collect();
        for (id, standing) in due {
            self.suspicions.remove(&id);
            let record = self.records.get(&id).filter(|record| record.standing() == standing);
            if let Some(record) = record.map(|record| Record { state: State::Down, ..Record::clone(record) })
            {
                self.merge_record(now_ms, record, 0);
            }
        }
        while let Some(id) = self.dead.pop_due(now_ms, &self.tuning) {
            self.forget(&id);
        }
    }

    /// When the next deadline is due; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let forget = self.dead.next_due(&self.tuning);
        self.suspicions.values().map(|suspicion| suspicion.due_ms).chain(forget).min()
    }

    /// The next event. Call this until it returns `None` after each call that changes the table.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        let event = self.events.pop_front();
        if self.events.is_empty() && self.events.capacity() > MAX_IDLE_EVENTS {
            self.events = VecDeque::new();
        }
        event
    }

    /// Merges a record, and returns it, in the table's allocation if it has one.
    fn merge_record(&mut self, now_ms: u64, record: Record, wait_ms: u64) -> Arc<Record> {
        let (id, standing) = (record.identity.id, record.standing());
        if let Some(known) = self.shared_record(&id).filter(|known| known.standing() == standing) {
            return Arc::clone(known);
        }
        let record = self.share.share(&id, record);
        if id == self.own.identity.id {
            self.refute(&record);
        } else {
            self.learn(now_ms, &record, wait_ms);
        }
        record
    }

    /// Replaces the record of another member if this one is greater.
    fn learn(&mut self, now_ms: u64, record: &Arc<Record>, wait_ms: u64) {
        let id = record.identity.id;
        let standing = record.standing();
        let known = self.records.get(&id);
        if known.is_some_and(|known| known.standing() >= standing) {
            return;
        }
        let is_new = known.is_none();
        if is_new && !self.make_room(self.reached.contains(&id)) {
            self.events.push_back(MembershipEvent::Full);
            return;
        }
        let before = self.records.insert(Arc::clone(record));
        let was_live = before.as_ref().is_some_and(|record| record.is_live());
        self.suspicions.remove(&id);
        self.dead.remove(&id);
        let identity = record.identity.clone();
        match record.liveness() {
            Some(liveness) => {
                self.live += usize::from(!was_live);
                if liveness == Liveness::Suspect {
                    let due_ms = now_ms.saturating_add(wait_ms);
                    self.suspicions.insert(id, Suspicion { since_ms: now_ms, due_ms, standing });
                }
                let before = before.as_deref();
                if before.is_none_or(|before| before.identity != identity || before.state != record.state) {
                    let before =
                        before.and_then(|before| Some((before.identity.generation, before.liveness()?)));
                    self.events.push_back(MembershipEvent::Up { identity, liveness, before });
                }
            }
            None => {
                self.dead.insert(now_ms, id, self.reached.contains(&id));
                if was_live {
                    self.live -= 1;
                    self.events.push_back(MembershipEvent::Down { identity });
                }
            }
        }
        self.events.push_back(MembershipEvent::News { id });
    }

    /// Responds to a record of this daemon.
    fn refute(&mut self, record: &Record) {
        let (own, said) = (self.own.standing(), record.standing());
        if said <= own || own.is_down() {
            return;
        }
        if record.identity.generation > self.own.identity.generation {
            self.events.push_back(MembershipEvent::LaterGeneration { identity: record.identity.clone() });
        } else if !record.is_live() || record.identity.renewal > self.own.identity.renewal {
            self.renew_after(record.identity.renewal);
        } else if let Some(incarnation) = record.incarnation.checked_add(1) {
            self.set_own(Record { incarnation, ..Record::clone(&self.own) });
            self.events.push_back(MembershipEvent::Refuted);
        } else {
            self.renew();
        }
    }

    fn renew_after(&mut self, renewal: u32) {
        if !self.own.is_live() {
            return;
        }
        let renewal = renewal.max(self.own.identity.renewal).saturating_add(1);
        let identity = Identity { renewal, ..self.own.identity.clone() };
        self.events.push_back(MembershipEvent::Renewed { identity: identity.clone() });
        self.set_own(Record::alive(identity, self.own.key.clone()));
    }

    fn set_own(&mut self, record: Record) {
        // The signature was that of another statement.
        self.own = Arc::new(Record { attestation: Attestation::default(), ..record });
        self.events.push_back(MembershipEvent::News { id: self.own.identity.id });
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "saturation is intended"
)]
fn millis(period_ms: u64, periods: f64) -> u64 {
    (period_ms as f64 * periods) as u64
}
