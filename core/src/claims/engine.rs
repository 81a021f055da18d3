//! The consensus of the voters: Paxos on the table of claims.
//!
//! An acceptor stores the highest ballot that it has promised, and the last table that it has accepted, with its
//! position. A proposer collects the promises of a majority, adopts the table with the highest position among them, and
//! proposes it and the tables that follow under its own ballot. A table is *chosen* once a majority has accepted it or a
//! later one of the same ballot. Every later proposer finds it or a descendant in the promises of its majority.
//!
//! A voter becomes a proposer only if a majority hears no leader either, so one voter with a bad connection deposes
//! nobody, and gives up if it does not hear from a majority, so a voter that has a majority takes its place.

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Ballot, Change, Position, Table, Vote};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::leading::{Leading, Progress};
use super::store::{Record, Stored};

/// How often a leader tells that it is there.
pub const BEAT_MS: u64 = 2_000;
/// A leader that was not heard for this long has no supporters.
const SILENT_MS: u64 = 5_000;
/// Random part of the time before a voter tries to become leader.
const SPREAD_MS: u64 = 1_000;
/// The same if it knows that the leader is gone.
const SPREAD_KNOWN_MS: u64 = 100;
/// An attempt to become leader takes at most this long.
const ATTEMPT_MS: u64 = 1_000;

/// A voter by its index in the founding.
pub type Index = u8;

/// What the voter does.
#[derive(Debug)]
enum Role {
    Follower,
    /// Asks whether others would support a ballot.
    Canvassing {
        ballot: Ballot,
        support: Vec<Index>,
    },
    /// Collects promises.
    Preparing {
        ballot: Ballot,
        promises: Vec<Index>,
        best: Option<(Position, Table)>,
    },
    Leading(Leading),
}

/// What must be written, and what may leave after that.
#[derive(Debug, Default)]
pub struct Effects {
    /// In order.
    pub records: Vec<Record>,
    /// To other voters, or to this one.
    pub sends: Vec<(Index, Vote)>,
}

/// The consensus at one voter.
#[derive(Debug)]
pub struct Engine {
    own: Index,
    count: Index,
    promised: Ballot,
    accepted: Position,
    table: Table,
    role: Role,
    /// The leader, and when it was heard last.
    leader: Option<(Index, u64)>,
    /// When the voter tries to become leader, or gives an attempt up.
    act_ms: u64,
    /// The highest round that others have promised.
    highest_round: u64,
    rng: ChaCha8Rng,
    effects: Effects,
}

impl Engine {
    /// The engine of the voter `own` of `voters`, with what it has stored.
    #[must_use]
    pub fn new(own: Index, voters: &[NodeId], stored: &Stored, seed: u64, now_ms: u64) -> Engine {
        let mut engine = Engine {
            own,
            count: u8::try_from(voters.len()).unwrap_or(u8::MAX),
            promised: stored.promised,
            accepted: stored.accepted,
            table: stored.table.clone(),
            role: Role::Follower,
            leader: None,
            act_ms: 0,
            highest_round: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            effects: Effects::default(),
        };
        engine.act_later(now_ms, SPREAD_KNOWN_MS);
        engine
    }

    /// Takes what is to be written and sent.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The latest table that this voter has accepted. If it leads, that includes what it has proposed.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The position of that table.
    pub fn accepted(&self) -> Position {
        self.accepted
    }

    /// The highest ballot that it has promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The ballot under which this voter leads, once its first table was chosen.
    pub fn leads(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leading(leading) if leading.is_confirmed() => Some(leading.ballot()),
            _ => None,
        }
    }

    /// How far the others follow, if this voter leads.
    pub fn progress(&self) -> Option<Progress> {
        match &self.role {
            Role::Leading(leading) => Some(leading.progress()),
            _ => None,
        }
    }

    /// The leader that this voter follows.
    pub fn leader(&self, now_ms: u64) -> Option<Index> {
        match &self.role {
            Role::Leading(_) => Some(self.own),
            _ => self.leader.filter(|(_, heard)| now_ms < heard + SILENT_MS).map(|(leader, _)| leader),
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn wake_ms(&self) -> u64 {
        match &self.role {
            Role::Leading(leading) => leading.wake_ms(),
            _ => self.act_ms,
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        if let Role::Leading(leading) = &mut self.role {
            if leading.is_deserted(now_ms, SILENT_MS) {
                self.follow(now_ms);
            } else if now_ms >= leading.wake_ms() {
                self.beat(now_ms);
            }
        } else if now_ms >= self.act_ms {
            self.canvass(now_ms);
        }
    }

    /// The connection to a voter is gone. If it was the leader, somebody else may try at once.
    pub fn lost(&mut self, voter: Index, now_ms: u64) {
        if self.leader.is_some_and(|(leader, _)| leader == voter) && !matches!(self.role, Role::Leading(_)) {
            self.leader = None;
            self.act_ms = now_ms + self.rng.random_range(0..SPREAD_KNOWN_MS);
        }
    }

    /// Proposes changes; returns the version that contains them, or none if this voter does not lead.
    pub fn propose(&mut self, changes: &[Change]) -> Option<u64> {
        let Role::Leading(leading) = &self.role else { return None };
        let (from, ballot) = (self.accepted, leading.ballot());
        let to = Position { ballot, version: from.version + 1 };
        self.accept(to, changes);
        for voter in self.all() {
            let vote = if voter == self.own {
                Vote::Accepted(to)
            } else {
                Vote::Accept { from, to, changes: changes.to_vec() }
            };
            self.effects.sends.push((voter, vote));
        }
        Some(to.version)
    }

    /// Begins a beat, if this voter leads. A majority that answers it has promised nothing higher before it began.
    pub fn beat(&mut self, now_ms: u64) {
        let Role::Leading(leading) = &mut self.role else { return };
        let (ballot, round) = (leading.ballot(), leading.begin_beat(self.own, now_ms, BEAT_MS));
        let beat = Vote::Beat { ballot, round, latest: self.accepted };
        self.send_to_others(&beat);
    }

    /// Handles a message of a voter.
    pub fn receive(&mut self, from: Index, vote: Vote, now_ms: u64) {
        if from >= self.count {
            return;
        }
        match vote {
            Vote::Canvass(ballot) => {
                if ballot <= self.promised {
                    self.effects.sends.push((from, Vote::Refused(self.promised)));
                } else if self.leader(now_ms).is_none() {
                    self.effects.sends.push((from, Vote::Support(ballot)));
                }
            }
            Vote::Support(ballot) => self.supported(from, ballot, now_ms),
            Vote::Prepare { ballot, accepted } => self.prepare(from, ballot, accepted, now_ms),
            Vote::Promise { ballot, accepted, table } => {
                self.promised_by(from, ballot, accepted, table, now_ms);
            }
            Vote::Accept { from: before, to, changes } => {
                if !self.hears(from, to.ballot, now_ms) {
                    return;
                }
                if to > self.accepted && before == self.accepted {
                    self.accept(to, &changes);
                }
                self.answer_position(from, to);
            }
            Vote::Image { to, table } => {
                if !self.hears(from, to.ballot, now_ms) {
                    return;
                }
                if to > self.accepted {
                    (self.accepted, self.promised, self.table) = (to, to.ballot, table.clone());
                    self.effects.records.push(Record::Image { to, table });
                }
                self.answer_position(from, to);
            }
            Vote::Beat { ballot, round, latest } => {
                if !self.hears(from, ballot, now_ms) {
                    return;
                }
                if ballot > self.promised {
                    self.promise(ballot);
                }
                self.effects.sends.push((from, Vote::Heard { ballot, round }));
                // Also if it has that table: the leader may not have heard of it.
                self.answer_position(from, latest);
            }
            Vote::Accepted(to) => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.accepted_by(from, to, now_ms);
                }
            }
            Vote::Behind { ballot, accepted } => {
                if let Role::Leading(leading) = &mut self.role
                    && leading.ballot() == ballot
                    && accepted < self.accepted
                    && leading.may_send_image(from, now_ms)
                {
                    let image = Vote::Image { to: self.accepted, table: self.table.clone() };
                    self.effects.sends.push((from, image));
                }
            }
            Vote::Heard { ballot, round } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.heard_by(from, ballot, round, now_ms);
                }
            }
            Vote::Refused(promised) => self.refused(promised, now_ms),
            // Those are for whoever answers members.
            Vote::Relay { .. } | Vote::Relayed { .. } => {}
        }
    }

    fn all(&self) -> std::ops::Range<Index> {
        0..self.count
    }

    fn is_majority(&self, count: usize) -> bool {
        2 * count > usize::from(self.count)
    }

    fn send_to_others(&mut self, vote: &Vote) {
        for voter in self.all().filter(|voter| *voter != self.own) {
            self.effects.sends.push((voter, vote.clone()));
        }
    }

    fn act_later(&mut self, now_ms: u64, spread_ms: u64) {
        self.act_ms = now_ms + spread_ms + self.rng.random_range(0..spread_ms);
    }

    fn follow(&mut self, now_ms: u64) {
        self.role = Role::Follower;
        self.act_later(now_ms, SPREAD_MS);
    }

    /// Whether a message of the leader with this ballot counts. If so, the voter follows it.
    fn hears(&mut self, from: Index, ballot: Ballot, now_ms: u64) -> bool {
        if ballot < self.promised || ballot.voter != from {
            self.effects.sends.push((from, Vote::Refused(self.promised)));
            return false;
        }
        if from != self.own {
            self.role = Role::Follower;
            self.leader = Some((from, now_ms));
            self.act_ms = now_ms + SILENT_MS + self.rng.random_range(0..SPREAD_MS);
        }
        true
    }

    fn canvass(&mut self, now_ms: u64) {
        let round = self.promised.round.max(self.highest_round).saturating_add(1);
        let ballot = Ballot { round, voter: self.own };
        self.leader = None;
        self.role = Role::Canvassing { ballot, support: Vec::new() };
        self.act_later(now_ms, ATTEMPT_MS / 2);
        self.send_to_others(&Vote::Canvass(ballot));
        self.supported(self.own, ballot, now_ms);
    }

    fn supported(&mut self, by: Index, ballot: Ballot, now_ms: u64) {
        let Role::Canvassing { ballot: wanted, support } = &mut self.role else { return };
        if *wanted != ballot || ballot <= self.promised || support.contains(&by) {
            return;
        }
        support.push(by);
        let count = support.len();
        if !self.is_majority(count) {
            return;
        }
        self.role = Role::Preparing { ballot, promises: Vec::new(), best: None };
        self.act_later(now_ms, ATTEMPT_MS);
        self.promise(ballot);
        let accepted = self.accepted;
        self.send_to_others(&Vote::Prepare { ballot, accepted });
        // The voter's own promise counts once it is written.
        self.effects.sends.push((self.own, Vote::Promise { ballot, accepted, table: None }));
    }

    fn promise(&mut self, ballot: Ballot) {
        self.promised = ballot;
        self.effects.records.push(Record::Promised(ballot));
    }

    fn prepare(&mut self, from: Index, ballot: Ballot, theirs: Position, now_ms: u64) {
        if ballot < self.promised || ballot.voter != from {
            self.effects.sends.push((from, Vote::Refused(self.promised)));
            return;
        }
        if ballot > self.promised {
            self.promise(ballot);
            self.follow(now_ms);
            self.act_later(now_ms, ATTEMPT_MS);
            self.leader = None;
        }
        let table = (self.accepted > theirs).then(|| self.table.clone());
        self.effects.sends.push((from, Vote::Promise { ballot, accepted: self.accepted, table }));
    }

    fn promised_by(
        &mut self,
        by: Index,
        ballot: Ballot,
        theirs: Position,
        table: Option<Table>,
        now_ms: u64,
    ) {
        let own = self.accepted;
        let Role::Preparing { ballot: wanted, promises, best } = &mut self.role else { return };
        if *wanted != ballot || ballot != self.promised || promises.contains(&by) {
            return;
        }
        match table {
            Some(table) if theirs > best.as_ref().map_or(own, |(position, _)| *position) => {
                *best = Some((theirs, table));
            }
            // It claims to have a newer table and does not show it.
            None if theirs > own => return,
            _ => {}
        }
        promises.push(by);
        let count = promises.len();
        if self.is_majority(count) {
            self.lead(ballot, now_ms);
        }
    }

    /// Proposes the highest table of a majority under the voter's own ballot.
    fn lead(&mut self, ballot: Ballot, now_ms: u64) {
        let Role::Preparing { best, .. } = std::mem::replace(&mut self.role, Role::Follower) else { return };
        if let Some((position, table)) = best {
            self.effects.records.push(Record::Image {
                to: Position { ballot, version: position.version },
                table: table.clone(),
            });
            // Under this ballot, only this voter proposes, so the position is its own to give.
            (self.accepted, self.table) = (Position { ballot, version: position.version }, table);
        }
        self.leader = None;
        let first = self.accepted.version + 1;
        self.role = Role::Leading(Leading::new(ballot, self.count, first, now_ms));
        self.propose(&[]);
        self.beat(now_ms);
    }

    fn accept(&mut self, to: Position, changes: &[Change]) {
        for change in changes {
            self.table.apply(change);
        }
        (self.accepted, self.promised) = (to, to.ballot);
        self.effects.records.push(Record::Accepted { to, changes: changes.to_vec() });
    }

    /// Tells a leader whether this voter has what it has proposed.
    fn answer_position(&mut self, leader: Index, proposed: Position) {
        let has = self.accepted.ballot == proposed.ballot && self.accepted.version >= proposed.version;
        let vote = if has {
            Vote::Accepted(self.accepted)
        } else {
            Vote::Behind { ballot: proposed.ballot, accepted: self.accepted }
        };
        self.effects.sends.push((leader, vote));
    }

    fn refused(&mut self, promised: Ballot, now_ms: u64) {
        let own = match &self.role {
            Role::Follower => return,
            Role::Canvassing { ballot, .. } | Role::Preparing { ballot, .. } => *ballot,
            Role::Leading(leading) => leading.ballot(),
        };
        if promised > own {
            self.highest_round = self.highest_round.max(promised.round);
            self.follow(now_ms);
        }
    }
}
