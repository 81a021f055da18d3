//! The requests of members, as the leader of the voters answers them, and the leases of those that hold claims.
//!
//! An answer waits until the table that it speaks of was chosen, and, if nothing was proposed for it, until a majority
//! has answered a beat that began after the request arrived: only then was this voter still the leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{
    Answer, Ask, Ballot, Change, ClaimName, Lease, Position, Reply, Request, Table,
};

use super::engine::{Engine, Index};
use super::leading::Progress;
use super::lease::{MAX_TTL_MS, MIN_TTL_MS, digest, free_after_ms};

/// Answers that wait. Beyond that, members are told to ask again later, as without a leader.
const MAX_WAITING: usize = 4_096;
/// Of these, the answers for one member, which may ask for all its claims at once, and the lists among them.
const MAX_WAITING_OF_MEMBER: usize = 2 * MAX_CLAIMS_OF_MEMBER;
const MAX_LISTS_OF_MEMBER: usize = 4;
/// Members that are told when a name is free. The others ask again every second anyway.
const MAX_WATCHERS: usize = 256;
/// Claims of one member, so that none can take the room of all.
const MAX_CLAIMS_OF_MEMBER: usize = 512;
/// A beat that somebody waits for is repeated after this time.
const BEAT_AGAIN_MS: u64 = 250;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// The member.
    pub(super) member: NodeId,
    /// The voter that has passed its request on.
    pub(super) via: Option<Index>,
}

/// An answer that waits.
#[derive(Debug)]
struct Waiting {
    version: u64,
    beat: u64,
    route: Route,
    id: u64,
    answer: Pending,
}

/// An answer, or the table that is listed: all that list the same one share it while they wait.
#[derive(Debug)]
enum Pending {
    Ready(Answer),
    List(Arc<Table>),
}

impl Waiting {
    fn reply(self) -> (Route, Reply) {
        let answer = match self.answer {
            Pending::Ready(answer) => answer,
            Pending::List(table) => Answer::Claims(Arc::unwrap_or_clone(table)),
        };
        (self.route, Reply { id: self.id, answer })
    }
}

/// The requests and leases of a leader; empty at the others.
#[derive(Debug, Default)]
pub(super) struct Requests {
    term: Option<Ballot>,
    /// When each lease ends.
    leases: BTreeMap<Lease, u64>,
    waiting: VecDeque<Waiting>,
    /// The table that was listed last.
    listed: Option<(Position, Arc<Table>)>,
    freed: VecDeque<(u64, ClaimName)>,
    watchers: BTreeMap<ClaimName, BTreeSet<Route>>,
    replies: Vec<(Route, Reply)>,
}

impl Requests {
    /// Takes the answers that are complete.
    pub(super) fn take_replies(&mut self) -> Vec<(Route, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// Handles a request.
    pub(super) fn ask(&mut self, engine: &mut Engine, route: Route, request: Request, now_ms: u64) {
        let Request { id, ask } = request;
        let (true, Some(progress)) =
            (engine.leads().is_some() && engine.leads() == self.term, engine.progress())
        else {
            return self.replies.push((route, Reply { id, answer: Answer::NoLeader }));
        };
        if self.has_no_room(route.member, &ask) {
            return self.replies.push((route, Reply { id, answer: Answer::NoLeader }));
        }
        let member = route.member;
        let mut beat = progress.beats + 1;
        let answer = match ask {
            Ask::Acquire { name, start, ttl_ms, attempt } => {
                if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
                    return;
                }
                let lease = Lease { member, start, ttl_ms };
                match engine.table().get(&name).copied() {
                    Some(claim) if claim.lease == lease && claim.attempt == attempt => {
                        self.extend(lease, now_ms);
                        Answer::Granted(claim.number)
                    }
                    Some(claim) => {
                        let watchers = self.watchers.entry(name).or_default();
                        if watchers.len() < MAX_WATCHERS {
                            watchers.insert(route);
                        }
                        Answer::Busy(claim)
                    }
                    // A correct member uses each number once.
                    None if engine.table().of(lease).any(|claim| claim.attempt == attempt) => return,
                    None if engine.table().is_full() || claims_of(engine, member) >= MAX_CLAIMS_OF_MEMBER => {
                        Answer::Full
                    }
                    None => {
                        self.extend(lease, now_ms);
                        engine.propose(&[Change::Grant { name, lease, attempt }]);
                        beat = 0;
                        Answer::Granted(engine.table().last_number())
                    }
                }
            }
            Ask::Renew { start, ttl_ms, digest: theirs } => {
                let lease = Lease { member, start, ttl_ms };
                let table = engine.table();
                let ours = digest(table.of(lease).map(|claim| claim.attempt));
                let answer = if ours == theirs {
                    Answer::Renewed
                } else {
                    Answer::Differs(table.of(lease).map(|claim| (claim.attempt, claim.number)).collect())
                };
                self.extend(lease, now_ms);
                answer
            }
            Ask::Release { start, ttl_ms, attempt } => {
                let lease = Lease { member, start, ttl_ms };
                if engine.table().of(lease).any(|claim| claim.attempt == attempt) {
                    self.free(engine, Change::Release { lease, attempt });
                    beat = 0;
                }
                Answer::Released
            }
            Ask::List => return self.list(engine, route, id, beat),
            Ask::Status => return,
        };
        let version = engine.accepted().version;
        let answer = Pending::Ready(answer);
        self.waiting.push_back(Waiting { version, beat, route, id, answer });
    }

    fn has_no_room(&self, member: NodeId, ask: &Ask) -> bool {
        let of_member = self.waiting.iter().filter(|wait| wait.route.member == member);
        let (all, lists) = of_member.fold((0, 0), |(all, lists), wait| {
            (all + 1, lists + usize::from(matches!(wait.answer, Pending::List(_))))
        });
        self.waiting.len() >= MAX_WAITING
            || all >= MAX_WAITING_OF_MEMBER
            || (matches!(ask, Ask::List) && lists >= MAX_LISTS_OF_MEMBER)
    }

    /// Answers with the table as it is now, which is copied once for all that ask for it.
    fn list(&mut self, engine: &Engine, route: Route, id: u64, beat: u64) {
        let at = engine.accepted();
        let known = self.listed.take().filter(|(known, _)| *known == at);
        let (_, table) = self.listed.insert(known.unwrap_or_else(|| (at, Arc::new(engine.table().clone()))));
        let answer = Pending::List(Arc::clone(table));
        self.waiting.push_back(Waiting { version: at.version, beat, route, id, answer });
    }

    /// Does what follows from the progress of the engine and from time. Called after each input.
    pub(super) fn advance(&mut self, engine: &mut Engine, now_ms: u64) {
        if engine.leads() != self.term {
            self.term = engine.leads();
            self.begin_term(engine, now_ms);
        }
        if self.term.is_none() {
            return;
        }
        let held: BTreeSet<Lease> = engine.table().claims().map(|(_, claim)| claim.lease).collect();
        self.leases.retain(|lease, _| held.contains(lease));
        let over: Vec<Lease> =
            self.leases.iter().filter(|(_, end)| now_ms >= **end).map(|(lease, _)| *lease).collect();
        for lease in over {
            self.leases.remove(&lease);
            self.free(engine, Change::Expire(lease));
        }
        let Some(progress) = self.complete(engine) else { return };
        while let Some((version, _)) = self.freed.front()
            && *version <= progress.chosen
        {
            let Some((_, name)) = self.freed.pop_front() else { break };
            for route in self.watchers.remove(&name).unwrap_or_default() {
                self.replies.push((route, Reply { id: 0, answer: Answer::Freed(name.clone()) }));
            }
        }
        let wants_beat = self.waiting.iter().any(|wait| wait.beat > progress.heard);
        let is_idle = progress.heard >= progress.beats || now_ms >= progress.begun_ms + BEAT_AGAIN_MS;
        if wants_beat && is_idle {
            engine.beat(now_ms);
            // A single voter needs nobody else's answer.
            self.complete(engine);
        }
    }

    /// Answers what the voters have agreed to by now.
    fn complete(&mut self, engine: &Engine) -> Option<Progress> {
        let progress = engine.progress()?;
        let is_done = |wait: &Waiting| wait.version <= progress.chosen && wait.beat <= progress.heard;
        let (done, waiting): (VecDeque<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_done);
        self.waiting = waiting;
        self.replies.extend(done.into_iter().map(Waiting::reply));
        Some(progress)
    }

    /// When [`advance`](Self::advance) has something to do.
    pub(super) fn wake_ms(&self, engine: &Engine) -> Option<u64> {
        let beat =
            engine.progress().filter(|progress| self.waiting.iter().any(|wait| wait.beat > progress.heard));
        let again = beat.map(|progress| progress.begun_ms + BEAT_AGAIN_MS);
        self.leases.values().copied().chain(again).min()
    }

    /// A new leader gives all holders a whole lease, because it does not know when the last leader renewed them.
    fn begin_term(&mut self, engine: &Engine, now_ms: u64) {
        self.leases.clear();
        self.freed.clear();
        self.watchers.clear();
        for wait in std::mem::take(&mut self.waiting) {
            self.replies.push((wait.route, Reply { id: wait.id, answer: Answer::NoLeader }));
        }
        if self.term.is_some() {
            let leases = engine.table().claims().map(|(_, claim)| claim.lease);
            self.leases = leases.map(|lease| (lease, now_ms + free_after_ms(lease.ttl_ms))).collect();
        }
    }

    fn extend(&mut self, lease: Lease, now_ms: u64) {
        let end = self.leases.entry(lease).or_default();
        *end = (*end).max(now_ms + free_after_ms(lease.ttl_ms));
    }

    fn free(&mut self, engine: &mut Engine, change: Change) {
        let mut after = engine.table().clone();
        let names = after.apply(&change);
        if let Some(version) = engine.propose(&[change]) {
            self.freed.extend(names.into_iter().map(|name| (version, name)));
        }
    }
}

fn claims_of(engine: &Engine, member: NodeId) -> usize {
    engine.table().claims().filter(|(_, claim)| claim.lease.member == member).count()
}
