//! A voter: the founding, the engine, and the answers to members.
//!
//! The caller hands over what arrives and takes the [`Output`]: it makes the records durable, in order, sends the frames
//! only after that, and then returns this voter's votes for itself with [`Voter::written`].

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{
    Answer, Ask, Ballot, Epoch, Founding, Frame, Position, Reply, Request, Role, Status, Vote,
};

use super::engine::{Engine, Index};
use super::founding::{Unfounded, digest};
use super::requests::{Requests, Route};
use super::store::{Record, Stored};

/// How often a voter greets those that have not answered.
const GREET_MS: u64 = 1_000;

/// How a voter begins.
#[derive(Debug)]
pub struct Setup {
    /// The host names of all voters, in order.
    pub hosts: Vec<String>,
    /// The index of this one.
    pub own: Index,
    /// Its id.
    pub own_id: NodeId,
    /// What it has stored; its latest start is this one.
    pub stored: Stored,
    /// Whether the store is certainly the one that this voter has written last, and not an older state of it.
    pub is_latest: bool,
    /// Random.
    pub seed: u64,
    /// The number of the founding if there is none yet; none if there is no clock to take one from.
    pub founding_number: Option<u64>,
    /// The time.
    pub now_ms: u64,
}

/// What the caller has to do.
#[derive(Debug, Default, PartialEq)]
pub struct Output {
    /// Records to make durable first.
    pub records: Vec<Record>,
    /// Frames to other voters.
    pub sends: Vec<(Index, Frame)>,
    /// Votes for [`Voter::written`].
    pub own: Vec<Vote>,
    /// Replies to members.
    pub replies: Vec<(NodeId, Reply)>,
}

/// A frame that no correct voter sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The sender is not the daemon that is the voter of this host.
    #[error("a daemon that is no voter has sent a vote")]
    NotAVoter,
}

/// What a voter has told this one.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    epoch: Epoch,
    promised: Ballot,
    accepted: Position,
    /// Whether it has confirmed that it knows nothing newer of this voter's store.
    confirmed: bool,
    /// Whether its present start has answered a greeting.
    answered: bool,
}

#[derive(Debug)]
enum Phase {
    Unfounded(Unfounded),
    Voting(Box<Voting>),
    Halted(Role),
}

#[derive(Debug)]
struct Voting {
    founding: Founding,
    engine: Engine,
    requests: Requests,
    told: Vec<Told>,
    greet_ms: u64,
    is_latest: bool,
}

/// A voter.
#[derive(Debug)]
pub struct Voter {
    own: Index,
    hosts: Vec<String>,
    stored: Stored,
    is_latest: bool,
    seed: u64,
    phase: Phase,
    output: Output,
}

impl Voter {
    /// Starts a voter.
    #[must_use]
    pub fn new(setup: Setup) -> Voter {
        let Setup { hosts, own, own_id, stored, is_latest, seed, founding_number, now_ms } = setup;
        let phase = Phase::Halted(Role::Broken);
        let output = Output::default();
        let mut voter = Voter { own, hosts: hosts.clone(), stored, is_latest, seed, phase, output };
        voter.phase = if voter.stored.rolled_back {
            Phase::Halted(Role::RolledBack)
        } else if let Some(founding) = voter.stored.founding.clone() {
            voter.begin(founding, now_ms)
        } else {
            let store = voter.stored.store;
            // The store's own number is as random as a tag has to be.
            Phase::Unfounded(Unfounded::new(own, hosts, own_id, store, store ^ seed, founding_number))
        };
        let alone = match &voter.phase {
            Phase::Unfounded(unfounded) => unfounded.alone(),
            _ => None,
        };
        if let Some(founding) = alone {
            voter.found(founding, now_ms);
        }
        voter
    }

    /// The number of the founding, if one is drawn up now; none if there is no clock to take one from.
    pub fn number_founding(&mut self, number: Option<u64>) {
        if let Phase::Unfounded(unfounded) = &mut self.phase {
            unfounded.number = number;
        }
    }

    /// Takes what the caller has to do.
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// The votes for itself of an output whose records are durable.
    pub fn written(&mut self, own: Vec<Vote>, now_ms: u64) {
        if let Phase::Voting(voting) = &mut self.phase {
            for vote in own {
                voting.engine.receive(self.own, vote, now_ms);
            }
        }
        self.advance(now_ms);
    }

    /// When [`tick`](Self::tick) has something to do; none if it never has.
    pub fn wake_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Unfounded(unfounded) => Some(unfounded.wake_ms()),
            Phase::Voting(voting) => {
                let engine = voting.is_known(self.own).then(|| voting.engine.wake_ms());
                let greet = voting.greets(self.own).then_some(voting.greet_ms);
                let requests = voting.requests.wake_ms(&voting.engine);
                engine.into_iter().chain(greet).chain(requests).min()
            }
            Phase::Halted(_) => None,
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        match &mut self.phase {
            Phase::Unfounded(unfounded) => self.output.sends.extend(unfounded.tick(now_ms)),
            Phase::Voting(voting) => {
                if voting.greets(self.own) && now_ms >= voting.greet_ms {
                    voting.greet_ms = now_ms + GREET_MS;
                    let waiting = (0u8..)
                        .zip(&voting.told)
                        .filter(|(index, told)| *index != self.own && !told.answered);
                    for (index, _) in waiting {
                        self.output.sends.push((index, voting.greeting(self.stored.epoch)));
                    }
                }
                if voting.is_known(self.own) {
                    voting.engine.tick(now_ms);
                }
            }
            Phase::Halted(_) => {}
        }
        self.advance(now_ms);
    }

    /// A connection to another voter was made.
    pub fn connected(&mut self, voter: Index, now_ms: u64) {
        match &mut self.phase {
            Phase::Unfounded(unfounded) => {
                unfounded.wake();
                self.output.sends.extend(unfounded.tick(now_ms));
            }
            Phase::Voting(voting) => {
                self.output.sends.push((voter, voting.greeting(self.stored.epoch)));
                voting.engine.beat(now_ms);
            }
            Phase::Halted(_) => {}
        }
        self.advance(now_ms);
    }

    /// The connection to another voter was lost.
    pub fn lost(&mut self, voter: Index, now_ms: u64) {
        if let Phase::Voting(voting) = &mut self.phase {
            voting.engine.lost(voter, now_ms);
        }
    }

    /// The store does not work: this voter ends.
    pub fn break_off(&mut self) {
        self.phase = Phase::Halted(Role::Broken);
    }

    /// What this voter does.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        let (role, accepted) = match &self.phase {
            Phase::Unfounded(_) => (Role::Unfounded, Position::default()),
            Phase::Halted(role) => (*role, self.stored.accepted),
            Phase::Voting(voting) => {
                let role = match (voting.engine.leads(), voting.engine.leader(now_ms)) {
                    (Some(_), _) => Role::Leader,
                    (None, Some(leader)) if leader != self.own => Role::Follower,
                    _ => Role::Leaderless,
                };
                (role, voting.engine.accepted())
            }
        };
        let founding = self.stored.founding.as_ref().map_or(0, |founding| founding.number);
        Status { role, founding, accepted, list: digest(&self.hosts) }
    }

    /// Handles a frame of the daemon `id` of the voter `from`.
    ///
    /// # Errors
    ///
    /// If no correct daemon sends it.
    pub fn receive(&mut self, from: Index, id: NodeId, frame: Frame, now_ms: u64) -> Result<(), Violation> {
        let known = self.stored.founding.as_ref().map(|founding| founding.voters.get(usize::from(from)));
        if let (Some(voter), false) = (known, matches!(frame, Frame::Unfounded { .. }))
            && voter.is_none_or(|voter| voter.id != id)
        {
            return Err(Violation::NotAVoter);
        }
        match frame {
            Frame::Unfounded { list, store } => self.announced(from, id, list, store, now_ms),
            Frame::Found(founding) => {
                if matches!(&self.phase, Phase::Unfounded(unfounded) if unfounded.accepts(from, &founding)) {
                    self.found(founding, now_ms);
                }
            }
            Frame::Stranger => {
                if matches!(self.phase, Phase::Unfounded(_)) {
                    self.phase = Phase::Halted(Role::Stranger);
                }
            }
            Frame::Greeting { tag, epoch, promised, accepted } => {
                if let Phase::Voting(voting) = &mut self.phase
                    && voting.founding.tag == tag
                {
                    let answer = voting.greeted(from, epoch, promised, accepted);
                    self.output.sends.push((from, answer));
                }
            }
            Frame::Known { epoch } => {
                if let Phase::Voting(voting) = &mut self.phase
                    && epoch == self.stored.epoch
                    && let Some(told) = voting.told.get_mut(usize::from(from))
                {
                    (told.confirmed, told.answered) = (true, true);
                }
            }
            Frame::RolledBack { epoch } => {
                if epoch == self.stored.epoch && matches!(self.phase, Phase::Voting(_)) {
                    self.output = Output { records: vec![Record::RolledBack], ..Output::default() };
                    self.phase = Phase::Halted(Role::RolledBack);
                }
            }
            Frame::Vote { tag, epoch, vote } => self.voted(from, tag, epoch, vote, now_ms),
            Frame::Request(_) | Frame::Reply(_) => return Err(Violation::NotAVoter),
        }
        self.advance(now_ms);
        Ok(())
    }

    /// Handles a request of a member.
    pub fn request(&mut self, member: NodeId, request: Request, now_ms: u64) {
        if request.ask == Ask::Status {
            let reply = Reply { id: request.id, answer: Answer::Status(self.status(now_ms)) };
            return self.output.replies.push((member, reply));
        }
        match &mut self.phase {
            Phase::Voting(voting) => match voting.engine.leader(now_ms) {
                Some(leader) if leader != self.own => {
                    let vote = Vote::Relay { member, request };
                    self.output.sends.push((leader, voting.frame(self.stored.epoch, vote)));
                }
                _ => voting.requests.ask(&mut voting.engine, Route { member, via: None }, request, now_ms),
            },
            _ => self.output.replies.push((member, Reply { id: request.id, answer: Answer::NoLeader })),
        }
        self.advance(now_ms);
    }

    fn begin(&mut self, founding: Founding, now_ms: u64) -> Phase {
        if !founding.voters.iter().map(|voter| &voter.host).eq(self.hosts.iter()) {
            return Phase::Halted(Role::ListDiffers);
        }
        let ids: Vec<NodeId> = founding.voters.iter().map(|voter| voter.id).collect();
        let engine = Engine::new(self.own, &ids, &self.stored, self.seed, now_ms);
        let told = vec![Told::default(); ids.len()];
        Phase::Voting(Box::new(Voting {
            founding,
            engine,
            requests: Requests::default(),
            told,
            greet_ms: now_ms,
            is_latest: self.is_latest,
        }))
    }

    fn found(&mut self, founding: Founding, now_ms: u64) {
        let record = Record::Founded(founding.clone());
        // An empty store always accepts a founding.
        let _ = self.stored.apply(record.clone());
        self.output.records.push(record);
        let others = (0u8..).zip(&founding.voters).map(|(index, _)| index).filter(|index| *index != self.own);
        if self.own == 0 {
            self.output.sends.extend(others.map(|index| (index, Frame::Found(founding.clone()))));
        }
        self.phase = self.begin(founding, now_ms);
    }

    fn announced(&mut self, from: Index, id: NodeId, list: u64, store: u64, now_ms: u64) {
        let founded = match &mut self.phase {
            Phase::Unfounded(unfounded) => unfounded.heard(from, id, list, store),
            Phase::Voting(voting) => {
                let voter = voting.founding.voters.get(usize::from(from));
                let listed = voter.is_some_and(|voter| voter.id == id && voter.store == store);
                let frame = if listed { Frame::Found(voting.founding.clone()) } else { Frame::Stranger };
                self.output.sends.push((from, frame));
                None
            }
            Phase::Halted(_) => None,
        };
        if let Some(founding) = founded {
            self.found(founding, now_ms);
        }
    }

    fn voted(&mut self, from: Index, tag: u64, epoch: Epoch, vote: Vote, now_ms: u64) {
        let Phase::Voting(voting) = &mut self.phase else { return };
        let Some(told) = voting.told.get_mut(usize::from(from)) else { return };
        // Votes of a start that has not greeted are not counted. The sender greets until it is answered.
        if voting.founding.tag != tag || told.epoch != epoch {
            return;
        }
        match &vote {
            Vote::Promise { ballot, .. } | Vote::Heard { ballot, .. } => {
                told.promised = told.promised.max(*ballot);
            }
            Vote::Accepted(position) => told.accepted = told.accepted.max(*position),
            _ => {}
        }
        if !voting.is_known(self.own) {
            return;
        }
        match vote {
            Vote::Relay { member, request } => {
                let route = Route { member, via: Some(from) };
                voting.requests.ask(&mut voting.engine, route, request, now_ms);
            }
            Vote::Relayed { member, reply } => self.output.replies.push((member, reply)),
            vote => voting.engine.receive(from, vote, now_ms),
        }
    }

    /// Moves what the engine and the requests have produced to the output.
    fn advance(&mut self, now_ms: u64) {
        let Phase::Voting(voting) = &mut self.phase else { return };
        voting.requests.advance(&mut voting.engine, now_ms);
        let epoch = self.stored.epoch;
        for (route, reply) in voting.requests.take_replies() {
            match route.via {
                None => self.output.replies.push((route.member, reply)),
                Some(via) => {
                    let vote = Vote::Relayed { member: route.member, reply };
                    self.output.sends.push((via, voting.frame(epoch, vote)));
                }
            }
        }
        let effects = voting.engine.take_effects();
        self.output.records.extend(effects.records);
        for (to, vote) in effects.sends {
            if to == self.own {
                self.output.own.push(vote);
            } else {
                self.output.sends.push((to, voting.frame(epoch, vote)));
            }
        }
    }
}

impl Voting {
    fn frame(&self, epoch: Epoch, vote: Vote) -> Frame {
        Frame::Vote { tag: self.founding.tag, epoch, vote }
    }

    fn greeting(&self, epoch: Epoch) -> Frame {
        let (promised, accepted) = (self.engine.promised(), self.engine.accepted());
        Frame::Greeting { tag: self.founding.tag, epoch, promised, accepted }
    }

    /// Whether there are voters that have not answered the greeting.
    fn greets(&self, own: Index) -> bool {
        (0u8..).zip(&self.told).any(|(index, told)| index != own && !told.answered)
    }

    /// Whether enough others have confirmed that this voter's store is not older than what it has told them. It does not
    /// vote before. One of them may have forgotten what it was told, by a restart, so a store that may be an older one needs
    /// so many that each majority with this voter contains one: those that it has told what it forgot may be exactly the
    /// others of a majority. A voter that votes alone has told nobody.
    fn is_known(&self, own: Index) -> bool {
        let others = (0u8..).zip(&self.told).filter(|(index, told)| *index != own && told.confirmed).count();
        let (count, all) = (2 * others, self.told.len());
        all == 1 || count >= all || (self.is_latest && count + 2 > all)
    }

    /// Compares the store of a voter with what it has told before.
    fn greeted(&mut self, from: Index, epoch: Epoch, promised: Ballot, accepted: Position) -> Frame {
        let Some(told) = self.told.get_mut(usize::from(from)) else { return Frame::RolledBack { epoch } };
        let is_new =
            epoch.starts > told.epoch.starts && promised >= told.promised && accepted >= told.accepted;
        if epoch != told.epoch && !is_new {
            return Frame::RolledBack { epoch };
        }
        if epoch != told.epoch {
            // It has forgotten what it knew of this voter.
            (told.epoch, told.answered) = (epoch, false);
        }
        (told.promised, told.accepted) = (told.promised.max(promised), told.accepted.max(accepted));
        Frame::Known { epoch }
    }
}
