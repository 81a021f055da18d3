//! The members of the cluster: SWIM, as the foca crate implements it.
//!
//! A. Das, I. Gupta, A. Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol",
//! 2002. Each daemon probes one member after the other in random order; who does not answer, neither directly nor to
//! helpers, is suspected, and dead unless it objects in time. News ride on the probes.
//!
//! ```text
//!             probe failed, or evidence            nobody objected in time
//!   Alive ───────────────────────────▶ Suspect ─────────────────────────────▶ Down
//!     ▲                                   │                                     │
//!     └─── objected: higher incarnation ──┘                                     │
//!     └──────────── came back: later life, or the same one renewed ────────────┘
//! ```
//!
//! This adaptor adds what foca leaves to its user: timers on the caller's clock (time during which this daemon did not
//! run does not count), suspicion on evidence, transitions of members as events, and a guard against another daemon with
//! this one's identity.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use foca::{AccumulatingRuntime, Foca, Incarnation, Member, NoCustomBroadcast, PeriodicParams, State, Timer};
use pmd_protocol::limits::MAX_MEMBERSHIP;
use pmd_protocol::peer::{Generation, NodeId};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::health::Health;
use super::identity::{Codec, Identity};
use crate::registry::directory::Liveness;
use crate::tuning::MembershipTuning;

/// Rounds of gossip with which a new identity makes itself known.
const RESUME_ROUNDS: usize = 2;

/// What the membership wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet.
    Send {
        /// To whom.
        to: Identity,
        /// At most [`MAX_MEMBERSHIP`] bytes.
        packet: Vec<u8>,
    },
    /// A member lives (or is suspected): it is new, has come back, or is in a later life or another state than before.
    Up {
        /// Who.
        identity: Identity,
        /// How it is.
        liveness: Liveness,
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
    /// Another daemon has this one's identity, and a later life. The packet was ignored. It must not go on like this.
    LaterLife {
        /// The other.
        identity: Identity,
    },
}

/// A packet that is not one, or not for this daemon. To be counted; nothing else follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("membership packet: {0}")]
pub struct PacketError(String);

/// The members, as this daemon knows them.
pub struct Swim {
    foca: Foca<Identity, Codec, ChaCha8Rng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    tuning: MembershipTuning,
    timers: BTreeMap<(u64, u64), Fuse>,
    next_timer: u64,
    /// What has been told about members, to tell only what is new.
    told: BTreeMap<NodeId, Told>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    identity: Identity,
    state: Liveness,
    incarnation: Incarnation,
}

/// What happens when a timer fires.
enum Fuse {
    Foca(Timer<Identity>),
    /// Evidence made a member a suspect; it is dead if it is still the same suspect.
    Suspicion(Identity, Incarnation),
}

impl Swim {
    /// A daemon that knows nobody. Equal seeds lead to equal choices.
    #[must_use]
    pub fn new(identity: Identity, tuning: MembershipTuning, seed: [u8; 32]) -> Self {
        let rng = ChaCha8Rng::from_seed(seed);
        Self {
            foca: Foca::new(identity, config(&tuning, 1), rng, Codec),
            runtime: AccumulatingRuntime::new(),
            tuning,
            timers: BTreeMap::new(),
            next_timer: 0,
            told: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// What this daemon is called at the moment.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The live members besides this one, by id.
    pub fn members(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.told.values().map(|told| (&told.identity, told.state))
    }

    /// A live member.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<(&Identity, Liveness)> {
        self.told.get(id).map(|told| (&told.identity, told.state))
    }

    /// How many live members there are besides this one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Whether this daemon is alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Asks a daemon, of whom a greeting is known, to be told about the cluster.
    pub fn announce(&mut self, now_ms: u64, to: Identity) {
        // Fails only if its own identity does not fit into a packet, which is bounded.
        let _ = self.foca.announce(to, &mut self.runtime);
        self.drain(now_ms);
    }

    /// Takes a packet.
    ///
    /// # Errors
    ///
    /// If it is malformed or misdirected. What could be used of it has been.
    pub fn handle_packet(&mut self, now_ms: u64, packet: &[u8], health: &Health) -> Result<(), PacketError> {
        let news = self.inspect(packet)?;
        if let Some(identity) = news.later_life {
            self.outputs.push_back(Output::LaterLife { identity });
            return Ok(());
        }
        let result = self.foca.handle_data(packet, &mut self.runtime);
        self.drain_with(now_ms, health);
        if news.changes {
            self.tell(now_ms);
        }
        result.map_err(|error| PacketError(error.to_string()))
    }

    /// Suspects a member on evidence: it is dead in `wait_ms` unless it objects. Whether it is a live member, in this
    /// life, whom nobody suspects yet.
    pub fn suspect(&mut self, now_ms: u64, id: &NodeId, generation: Generation, wait_ms: u64) -> bool {
        let Some(told) = self.told.get(id).filter(|told| told.identity.generation == generation).cloned()
        else {
            return false;
        };
        // A suspect stays one, but a shorter wait may apply to it now.
        self.set_timer(now_ms, wait_ms, Fuse::Suspicion(told.identity.clone(), told.incarnation));
        let update = Member::new(told.identity, told.incarnation, State::Suspect);
        self.apply(now_ms, update);
        told.state == Liveness::Alive
    }

    /// Tells live members that somebody takes them for dead, so that they come back renewed.
    pub fn recall(&mut self, ids: &[NodeId]) {
        use foca::Codec as _;
        for told in ids.iter().filter_map(|id| self.told.get(id)) {
            let header = foca::Header {
                src: self.foca.identity().clone(),
                // The lowest: it must not look like an objection to anything.
                src_incarnation: Incarnation::default(),
                dst: told.identity.clone(),
                message: foca::Message::TurnUndead,
            };
            let mut packet = Vec::new();
            if Codec.encode_header(&header, &mut packet).is_ok() {
                self.outputs.push_back(Output::Send { to: told.identity.clone(), packet });
            }
        }
    }

    /// How long a suspect has to object, in milliseconds.
    #[must_use]
    pub fn suspicion_ms(&self) -> u64 {
        u64::try_from(config(&self.tuning, self.told.len()).suspect_to_down_after.as_millis())
            .unwrap_or(u64::MAX)
    }

    /// Begins a new life without having been away: others know something about the current one that this daemon does
    /// not know itself, see [`OwnClaim`](crate::registry::store::OwnClaim) and [`Output::LaterLife`].
    pub fn begin_life(&mut self, now_ms: u64, generation: Generation) {
        let current = self.foca.identity();
        let next = Identity { generation, renewal: 0, ..current.clone() };
        // Fails only if nothing has changed.
        let _ = self.foca.change_identity(next, &mut self.runtime);
        self.resume(now_ms);
    }

    /// Tells the others that this daemon leaves. It belongs to no cluster then, and is of no more use.
    pub fn leave(&mut self, now_ms: u64) {
        // An error means that nobody could be told; they will notice.
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.drain(now_ms);
    }

    /// Runs what is due. `now_ms` is monotonic.
    ///
    /// `lag_ms` is for how long this daemon has not been running. That time does not count: nobody is accused of not
    /// having answered while the answer waited here to be read.
    pub fn handle_timeout(&mut self, now_ms: u64, lag_ms: u64, health: &Health) {
        if lag_ms > 0 {
            let late = std::mem::take(&mut self.timers);
            let shifted =
                late.into_iter().map(|((due, number), fuse)| ((due.saturating_add(lag_ms), number), fuse));
            self.timers = shifted.collect();
        }
        let mut fired = false;
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            fired = true;
            match entry.remove() {
                Fuse::Foca(timer) => {
                    // The errors are about its own bookkeeping, and it recovers from them.
                    let _ = self.foca.handle_timer(timer, &mut self.runtime);
                    self.drain_with(now_ms, health);
                }
                Fuse::Suspicion(identity, incarnation) => self.condemn(now_ms, identity, incarnation),
            }
        }
        if fired {
            self.tell(now_ms);
        }
    }

    /// When something will be due; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next thing that is wanted. To be called until there is none, after each call of anything else.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn condemn(&mut self, now_ms: u64, identity: Identity, incarnation: Incarnation) {
        let told = Told { identity, state: Liveness::Suspect, incarnation };
        if self.told.get(&told.identity.id) == Some(&told) {
            self.apply(now_ms, Member::new(told.identity, incarnation, State::Down));
        }
    }

    fn apply(&mut self, now_ms: u64, update: Member<Identity>) {
        // Fails only if a member does not fit into a packet, which is bounded.
        let _ = self.foca.apply_many(std::iter::once(update), true, &mut self.runtime);
        // At once, and not when the next probe is due: the accused wants to object, the others to know.
        let _ = self.foca.gossip(&mut self.runtime);
        self.drain(now_ms);
        self.tell(now_ms);
    }

    /// Looks through a packet before foca does.
    fn inspect(&self, packet: &[u8]) -> Result<News, PacketError> {
        use foca::Codec as _;
        let malformed = |error: super::identity::CodecError| PacketError(error.to_string());
        let mut rest = packet;
        let header = Codec.decode_header(&mut rest).map_err(malformed)?;
        let mut news = News::default();
        self.note(&header.src, header.src_incarnation, State::Alive, &mut news);
        if let Some((count, mut members)) = rest.split_first_chunk::<2>() {
            for _ in 0..u16::from_be_bytes(*count) {
                let member = Codec.decode_member(&mut members).map_err(malformed)?;
                self.note(member.id(), member.incarnation(), member.state(), &mut news);
            }
        }
        Ok(news)
    }

    fn note(&self, identity: &Identity, incarnation: Incarnation, state: State, news: &mut News) {
        let me = self.foca.identity();
        if identity.id == me.id {
            if identity.generation > me.generation {
                news.later_life = Some(identity.clone());
            }
            // What concerns this daemon may end in a renewal, and that in news about others.
            news.changes |= state != State::Alive;
            return;
        }
        let told = self.told.get(&identity.id);
        news.changes |= told.is_none_or(|told| {
            told.identity != *identity
                || told.incarnation != incarnation
                || Some(told.state) != liveness(state)
        });
    }

    /// Tells what has changed.
    fn tell(&mut self, now_ms: u64) {
        let mut gone = std::mem::take(&mut self.told);
        let before = gone.len();
        for member in self.foca.iter_members() {
            let Some(state) = liveness(member.state()) else { continue };
            let told = Told { identity: member.id().clone(), state, incarnation: member.incarnation() };
            let known = gone.remove(&told.identity.id);
            if known.is_none_or(|known| (&known.identity, known.state) != (&told.identity, state)) {
                self.outputs.push_back(Output::Up { identity: told.identity.clone(), liveness: state });
            }
            self.told.insert(told.identity.id, told);
        }
        self.outputs.extend(gone.into_values().map(|told| Output::Down { identity: told.identity }));
        if self.told.len() != before {
            // Nothing that may not change changes, so this cannot be refused.
            let _ = self.foca.set_config(config(&self.tuning, self.told.len()));
            self.drain(now_ms);
        }
    }

    fn drain(&mut self, now_ms: u64) {
        self.drain_stretched(now_ms, |_, after| after);
    }

    fn drain_with(&mut self, now_ms: u64, health: &Health) {
        // Lifeguard, section IV-A: who doubts itself probes less often and waits longer for answers.
        self.drain_stretched(now_ms, |timer, after| match timer {
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => health.stretch(after),
            _ => after,
        });
    }

    fn drain_stretched(&mut self, now_ms: u64, stretch: impl Fn(&Timer<Identity>, u64) -> u64) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let after = stretch(&timer, after);
            self.set_timer(now_ms, after, Fuse::Foca(timer));
        }
        while let Some((to, packet)) = self.runtime.to_send() {
            self.outputs.push_back(Output::Send { to, packet: packet.to_vec() });
        }
        let mut renewed = false;
        while let Some(notification) = self.runtime.to_notify() {
            if let foca::OwnedNotification::Rejoin(identity) = notification {
                self.outputs.push_back(Output::Renewed { identity });
                renewed = true;
            }
        }
        if renewed {
            self.resume(now_ms);
        }
    }

    /// Goes on under a new identity at once. foca would wait until somebody else, who does not know it yet, sends
    /// something.
    fn resume(&mut self, now_ms: u64) {
        // Neither of the two can fail: nothing is applied, and what is sent has been sent before.
        let _ = self.foca.apply_many(std::iter::empty(), true, &mut self.runtime);
        for _ in 0..RESUME_ROUNDS {
            let _ = self.foca.gossip(&mut self.runtime);
        }
        self.drain(now_ms);
    }

    fn set_timer(&mut self, now_ms: u64, after_ms: u64, fuse: Fuse) {
        self.timers.insert((now_ms.saturating_add(after_ms), self.next_timer), fuse);
        self.next_timer += 1;
    }
}

impl std::fmt::Debug for Swim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swim")
            .field("identity", self.foca.identity())
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

/// What a packet brings.
#[derive(Default)]
struct News {
    /// Whether members may be others, or in another state, than was told.
    changes: bool,
    later_life: Option<Identity>,
}

fn liveness(state: State) -> Option<Liveness> {
    match state {
        State::Alive => Some(Liveness::Alive),
        State::Suspect => Some(Liveness::Suspect),
        State::Down => None,
    }
}

/// The settings for a cluster in which `others` live besides this daemon.
fn config(tuning: &MembershipTuning, others: usize) -> foca::Config {
    let cluster = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    let mut config = foca::Config::new_lan(NonZeroU32::new(cluster).unwrap_or(NonZeroU32::MIN));
    let periods = tuning.suspicion_periods * f64::from(cluster).log10().max(1.0);
    config.probe_period = Duration::from_millis(tuning.probe_period_ms);
    config.probe_rtt = Duration::from_millis(tuning.probe_rtt_ms);
    config.num_indirect_probes = NonZeroUsize::new(tuning.helpers).unwrap_or(NonZeroUsize::MIN);
    config.suspect_to_down_after = config.probe_period.mul_f64(periods.clamp(1.0, 1_000.0));
    config.remove_down_after = Some(Duration::from_millis(tuning.remember_down_ms));
    config.max_packet_size = NonZeroUsize::new(MAX_MEMBERSHIP).unwrap_or(NonZeroUsize::MIN);
    config.max_transmissions =
        config.max_transmissions.max(NonZeroU8::new(tuning.transmissions).unwrap_or(NonZeroU8::MIN));
    config.periodic_gossip = Some(periodic(tuning.gossip_ms, tuning.helpers));
    config.periodic_announce = Some(periodic(30_000, 1));
    config.periodic_announce_to_down_members = Some(periodic(10_000, 2));
    config
}

fn periodic(frequency_ms: u64, members: usize) -> PeriodicParams {
    PeriodicParams {
        frequency: Duration::from_millis(frequency_ms),
        num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
    }
}
