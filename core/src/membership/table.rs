//! The members of the cluster.
//!
//! The rules are those of SWIM (A. Das, I. Gupta, A. Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process
//! Group Membership Protocol", 2002, section 4): who could not be reached is suspected, and gone unless it objects in
//! time; it alone may raise its incarnation.
//!
//! ```text
//!             evidence                             nobody objected in time
//!   Alive ───────────────────────────▶ Suspect ─────────────────────────────▶ Down
//!     ▲                                   │                                     │
//!     └─── objected: higher incarnation ──┘                                     │
//!     └──────────── came back: later life, or the same one renewed ────────────┘
//! ```
//!
//! What SWIM does by chance is done here with what stands already. It probes a random member each period; here everybody
//! hears the heartbeats of ten others, looks into each silence at once ([`evidence`](super::evidence)), and dials a
//! member outside its links now and then. It infects by random packets; here news flow over the links of the overlay,
//! and a link remembers what its peer knows, as it does for the registry. So an idle cluster says nothing about its
//! members, however many they are, and news need a few hops and not rounds.
//!
//! The table is joined like the registry: of two records of one member the one with the greater [`Standing`] counts, in
//! whatever order they come and however often.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use pmd_protocol::peer::{Generation, NodeId};

use super::identity::Identity;
use super::record::Liveness;
pub use super::record::PacketError;
use super::record::{Record, Standing, State, unpack};
use crate::facts::{Facts, Share, Unshared};
use crate::tuning::MembershipTuning;

/// Members of whom anything is remembered, dead ones included. Only a proven member can make the table grow; this bounds
/// what a broken one can do (20 MB).
pub const MAX_KNOWN: usize = 65_536;

/// Room that is kept for outputs when there are none: more was for a burst.
const MAX_IDLE_OUTPUTS: usize = 64;

/// What the membership wants, or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// There is something new about a member, or about this daemon: everybody has to be told.
    News {
        /// About whom.
        id: NodeId,
    },
    /// A member lives (or is suspected): it is new, has come back, or is in a later life or another state than before.
    Up {
        /// Who.
        identity: Identity,
        /// How it is.
        liveness: Liveness,
        /// In which life it was alive before, and how, if it was.
        before: Option<(Generation, Liveness)>,
    },
    /// A member does not live any more.
    Down {
        /// Who.
        identity: Identity,
    },
    /// This daemon was declared dead, and has come back by itself.
    Renewed {
        /// What it is called now.
        identity: Identity,
    },
    /// Another daemon has this one's identity, and a later life. It must not go on like this.
    LaterLife {
        /// The other.
        identity: Identity,
    },
}

/// The members as one daemon knows them. See the module.
#[derive(Debug)]
pub struct Swim<S = Unshared> {
    own: Arc<Record>,
    tuning: MembershipTuning,
    table: Facts<Record>,
    share: S,
    live: usize,
    /// When each of the dead was found dead, oldest first.
    dead: BTreeSet<(u64, NodeId)>,
    suspicions: BTreeMap<NodeId, Suspicion>,
    outputs: VecDeque<Output>,
}

/// A member is gone at this time if nothing newer is known of it by then.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    due_ms: u64,
    standing: Standing,
}

impl<S: Share> Swim<S> {
    /// A daemon that knows nobody.
    #[must_use]
    pub fn new(identity: Identity, tuning: MembershipTuning, share: S) -> Self {
        Self {
            own: Arc::new(Record::alive(identity)),
            tuning,
            table: Facts::default(),
            share,
            live: 0,
            dead: BTreeSet::new(),
            suspicions: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// What this daemon is called at the moment.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.own.identity
    }

    /// The live members besides this one, by id.
    pub fn members(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.table.iter().filter_map(|record| Some((&record.identity, record.liveness()?)))
    }

    /// A live member.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<(&Identity, Liveness)> {
        let record = self.table.get(id)?;
        Some((&record.identity, record.liveness()?))
    }

    /// What is known of a member or of this daemon, dead or alive.
    #[must_use]
    pub fn record(&self, id: &NodeId) -> Option<&Record> {
        self.shared_record(id).map(AsRef::as_ref)
    }

    /// The same, to be kept with what a peer knows.
    #[must_use]
    pub fn shared_record(&self, id: &NodeId) -> Option<&Arc<Record>> {
        if *id == self.own.identity.id { Some(&self.own) } else { self.table.get(id) }
    }

    /// How many live members there are besides this one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether this daemon is alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Takes a packet; what its sender knows.
    ///
    /// # Errors
    ///
    /// If it is malformed. Nothing has changed then.
    pub fn handle_packet(&mut self, now_ms: u64, packet: &[u8]) -> Result<Vec<Arc<Record>>, PacketError> {
        let records = unpack(packet)?;
        let usual_ms = self.suspicion_ms();
        Ok(records.into_iter().map(|record| self.hear(now_ms, record, usual_ms)).collect())
    }

    /// Takes what somebody says about a member; the same record as it is kept here, if it is what is known.
    fn hear(&mut self, now_ms: u64, record: Record, wait_ms: u64) -> Arc<Record> {
        let (id, standing) = (record.identity.id, record.standing());
        let same = |known: &&Arc<Record>| known.standing() == standing;
        if let Some(known) = self.shared_record(&id).filter(same) {
            return Arc::clone(known);
        }
        let record = self.share.share(&id, record);
        self.learn(now_ms, &record, wait_ms);
        record
    }

    /// A daemon has proven who it is, so it lives; unless more is known of it than it says. Then it has to be told.
    pub fn meet(&mut self, now_ms: u64, identity: Identity) {
        self.hear(now_ms, Record::alive(identity), 0);
    }

    /// Suspects a member on evidence: it is dead in `wait_ms` unless it objects. Whether it is a live member, in this
    /// life, whom nobody suspects yet.
    pub fn suspect(&mut self, now_ms: u64, id: &NodeId, generation: Generation, wait_ms: u64) -> bool {
        let Some(record) = self.table.get(id).filter(|record| record.identity.generation == generation)
        else {
            return false;
        };
        match record.state {
            State::Alive => {
                let record = Record { state: State::Suspect, ..Record::clone(record) };
                self.hear(now_ms, record, wait_ms);
                true
            }
            State::Suspect => {
                // It stays one, but a shorter wait may apply to it now.
                if let Some(suspicion) = self.suspicions.get_mut(id) {
                    suspicion.due_ms = suspicion.due_ms.min(now_ms.saturating_add(wait_ms));
                }
                false
            }
            State::Down => false,
        }
    }

    /// Somebody takes this daemon for dead: comes back under a renewed identity.
    pub fn renew(&mut self) {
        self.renew_after(self.own.identity.renewal);
    }

    /// How long a suspect has to object, in milliseconds.
    #[must_use]
    pub fn suspicion_ms(&self) -> u64 {
        let members = u32::try_from(self.live).unwrap_or(u32::MAX).saturating_add(1);
        let periods = self.tuning.suspicion_periods.clamp(1.0, 1_000.0) * f64::from(members).log10().max(1.0);
        millis(self.tuning.probe_period_ms, periods)
    }

    /// Begins a new life without having been away: others know something about the current one that this daemon does
    /// not know itself, see [`OwnClaim`](crate::replica::store::OwnClaim) and [`Output::LaterLife`].
    pub fn begin_life(&mut self, generation: Generation) {
        self.own = Arc::new(Record::alive(Identity { generation, renewal: 0, ..self.own.identity.clone() }));
        self.outputs.push_back(Output::News { id: self.own.identity.id });
    }

    /// Tells the others that this daemon can be reached elsewhere. Whether that is news.
    pub fn advertise(&mut self, addresses: &[SocketAddr]) -> bool {
        let own = &self.own.identity;
        let moved = Identity::new(own.id, own.generation, addresses);
        if !self.own.is_live() || moved.addresses == own.addresses {
            return false;
        }
        let renewal = own.renewal.saturating_add(1);
        self.own = Arc::new(Record::alive(Identity { renewal, ..moved }));
        self.outputs.push_back(Output::News { id: self.own.identity.id });
        true
    }

    /// Tells the others that this daemon leaves. It belongs to no cluster then, and is of no more use.
    pub fn leave(&mut self) {
        Arc::make_mut(&mut self.own).state = State::Down;
        self.outputs.push_back(Output::News { id: self.own.identity.id });
    }

    /// Runs what is due. `now_ms` is monotonic.
    ///
    /// `lag_ms` is for how long this daemon has not been running. That time does not count: nobody is condemned whose
    /// objection waited here to be read.
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
            let record = self.table.get(&id).filter(|record| record.standing() == standing);
            if let Some(record) = record.map(|record| Record { state: State::Down, ..Record::clone(record) })
            {
                self.hear(now_ms, record, 0);
            }
        }
        while let Some((since, id)) =
            self.dead.first().copied().filter(|(since, _)| self.is_over(now_ms, *since))
        {
            self.dead.remove(&(since, id));
            self.table.remove(&id);
        }
    }

    /// When something will be due; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let forget = self.dead.first().map(|(since, _)| since.saturating_add(self.tuning.remember_down_ms));
        self.suspicions.values().map(|suspicion| suspicion.due_ms).chain(forget).min()
    }

    /// The next thing that is wanted. To be called until there is none, after each call of anything else.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() && self.outputs.capacity() > MAX_IDLE_OUTPUTS {
            self.outputs = VecDeque::new();
        }
        output
    }

    fn is_over(&self, now_ms: u64, since_ms: u64) -> bool {
        now_ms.saturating_sub(since_ms) >= self.tuning.remember_down_ms
    }

    /// Takes what somebody says about a member, if it is newer than what is known.
    fn learn(&mut self, now_ms: u64, record: &Arc<Record>, wait_ms: u64) {
        let id = record.identity.id;
        if id == self.own.identity.id {
            self.answer(record);
            return;
        }
        let standing = record.standing();
        let known = self.table.get(&id);
        if known.is_some_and(|known| known.standing() >= standing) {
            return;
        }
        if known.is_none() && self.table.len() >= MAX_KNOWN {
            return;
        }
        let (state, identity) = (record.state, record.identity.clone());
        let before = self.table.insert(Arc::clone(record));
        let was_live = before.as_ref().is_some_and(|record| record.is_live());
        self.suspicions.remove(&id);
        if before.is_some() && !was_live {
            self.dead.retain(|(_, dead)| *dead != id);
        }
        match (state, record.liveness()) {
            (_, Some(liveness)) => {
                self.live += usize::from(!was_live);
                if state == State::Suspect {
                    let due_ms = now_ms.saturating_add(wait_ms);
                    self.suspicions.insert(id, Suspicion { due_ms, standing });
                }
                let before = before.as_deref();
                if before.is_none_or(|before| before.identity != identity || before.state != state) {
                    let before =
                        before.and_then(|before| Some((before.identity.generation, before.liveness()?)));
                    self.outputs.push_back(Output::Up { identity, liveness, before });
                }
            }
            (_, None) => {
                self.dead.insert((now_ms, id));
                if was_live {
                    self.live -= 1;
                    self.outputs.push_back(Output::Down { identity });
                }
            }
        }
        self.outputs.push_back(Output::News { id });
    }

    /// Answers what somebody says about this daemon itself.
    fn answer(&mut self, record: &Record) {
        let (own, said) = (self.own.standing(), record.standing());
        if said <= own || own.is_down() {
            return;
        }
        if record.identity.generation > self.own.identity.generation {
            self.outputs.push_back(Output::LaterLife { identity: record.identity.clone() });
        } else if record.state == State::Down || record.identity.renewal > self.own.identity.renewal {
            self.renew_after(record.identity.renewal);
        } else if let Some(incarnation) = record.incarnation.checked_add(1) {
            Arc::make_mut(&mut self.own).incarnation = incarnation;
            self.outputs.push_back(Output::News { id: self.own.identity.id });
        } else {
            self.renew();
        }
    }

    fn renew_after(&mut self, renewal: u32) {
        if !self.own.is_live() {
            return;
        }
        let renewal = renewal.max(self.own.identity.renewal).saturating_add(1);
        self.own = Arc::new(Record::alive(Identity { renewal, ..self.own.identity.clone() }));
        self.outputs.push_back(Output::Renewed { identity: self.own.identity.clone() });
        self.outputs.push_back(Output::News { id: self.own.identity.id });
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "saturates, which is what is wanted"
)]
fn millis(period_ms: u64, periods: f64) -> u64 {
    (period_ms as f64 * periods) as u64
}
