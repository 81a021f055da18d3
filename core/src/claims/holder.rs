//! The side of a member that claims: it asks a voter, renews the lease of what it holds, and knows how long that lasts.
//!
//! Any voter will do, because each passes requests on to the leader. A request that is not answered goes to the next one.
//! Times are those of a clock that also counts while the host is suspended.

use std::collections::BTreeMap;

use pmd_protocol::peer::claims::{Answer, Ask, Claim, ClaimName, Reply, Request, Table};

use super::engine::Index;
use super::lease::{dead_after_ms, digest, free_after_ms, lost_after_ms, renew_after_ms};

/// A request that was not answered for this long goes to another voter.
const ANSWER_MS: u64 = 1_000;
/// The pause before a voter without a leader is followed by the next one.
const NO_LEADER_MS: u64 = 100;
/// How often a held name is asked for, besides when the voters tell that it is free.
const ASK_AGAIN_MS: u64 = 1_000;
/// Requests whose answers may still come. The oldest is forgotten, as if its answer was lost.
const MAX_SENT: usize = 4_096;

/// What happened to a claim, by its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is held with this number, until the times of [`Until`].
    Granted(u64, u64, Until),
    /// It lasts longer.
    Renewed(u64, Until),
    /// Somebody else holds the name.
    Busy(u64, Claim),
    /// There are too many claims.
    Full(u64),
    /// It is over, although nobody has released it.
    Lost(u64, Loss),
    /// The voters have listed the claims, for this query.
    Listed(u64, Table),
}

/// Why a claim is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was not renewed in time, and is kept by the voters for a while: what depends on it may end in order.
    NotRenewed,
    /// The voters do not know it any more, so somebody else may hold the name already.
    Revoked,
}

/// How long a claim lasts unless it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The claim is given up: what depends on it is told to end.
    pub lost_ms: u64,
    /// What depends on it has ended by now, by force.
    pub dead_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wanted,
    Held {
        number: u64,
        renewed_ms: u64,
    },
    /// Given up; whoever uses it has not released it yet.
    Lost {
        number: u64,
        renewed_ms: u64,
    },
    /// Nobody knows whether what depends on it has ended, so it is released when the voters would free it.
    Abandoned {
        number: u64,
    },
    Released,
}

#[derive(Debug)]
struct Claiming {
    name: ClaimName,
    ttl_ms: u32,
    state: State,
    /// When to ask for it, or to release it, again.
    ask_ms: u64,
}

#[derive(Debug)]
enum What {
    Acquire(u64),
    /// The attempts that were held when the renewal was sent.
    Renew(u32, Vec<u64>),
    Release(u64),
    List(u64),
}

#[derive(Debug)]
struct Sent {
    to: Index,
    at_ms: u64,
    what: What,
}

/// The claims of a member.
#[derive(Debug)]
pub struct Holder {
    start: u64,
    voters: Index,
    target: Index,
    last_id: u64,
    last_attempt: u64,
    claims: BTreeMap<u64, Claiming>,
    /// When to renew the lease of each duration.
    renewals: BTreeMap<u32, u64>,
    queries: BTreeMap<u64, u64>,
    sent: BTreeMap<u64, Sent>,
    requests: Vec<(Index, Request)>,
    events: Vec<Event>,
}

impl Holder {
    /// A member with no claims. `start` distinguishes this start of its daemon from all others.
    #[must_use]
    pub fn new(start: u64, voters: Index, target: Index) -> Holder {
        Holder {
            start,
            voters: voters.max(1),
            target,
            // A reply that was meant for the last start of this daemon answers nothing of this one. The ids of
            // questions about voters are above.
            last_id: start >> 2,
            last_attempt: 0,
            claims: BTreeMap::new(),
            renewals: BTreeMap::new(),
            queries: BTreeMap::new(),
            sent: BTreeMap::new(),
            requests: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes the requests to send.
    pub fn take_requests(&mut self) -> Vec<(Index, Request)> {
        std::mem::take(&mut self.requests)
    }

    /// Takes what has happened.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether there is nothing to ask the voters for.
    pub fn is_idle(&self) -> bool {
        self.claims.is_empty() && self.queries.is_empty()
    }

    /// Begins to claim a name, and returns the attempt.
    pub fn claim(&mut self, name: ClaimName, ttl_ms: u32, now_ms: u64) -> u64 {
        self.last_attempt += 1;
        let attempt = self.last_attempt;
        self.claims.insert(attempt, Claiming { name, ttl_ms, state: State::Wanted, ask_ms: now_ms });
        self.tick(now_ms);
        attempt
    }

    /// Ends a claim, whether or not it was granted. What depended on it must have ended, unless it was lost before: then it
    /// still has the time that it had, because whoever used it has just been told.
    pub fn release(&mut self, attempt: u64, now_ms: u64) {
        match self.claims.get(&attempt).map(|claim| claim.state) {
            Some(State::Lost { .. } | State::Abandoned { .. }) => self.abandon(attempt, now_ms),
            Some(_) => self.release_at_once(attempt, now_ms),
            None => {}
        }
    }

    /// Ends the claim that was granted with this number, even if it was lost or abandoned since. What depended on it must
    /// have ended. Returns its attempt; none if there is no such claim.
    pub fn release_number(&mut self, name: &ClaimName, number: u64, now_ms: u64) -> Option<u64> {
        let has_number = |state: State| match state {
            State::Held { number: own, .. }
            | State::Lost { number: own, .. }
            | State::Abandoned { number: own } => own == number,
            State::Wanted | State::Released => false,
        };
        let found = self.claims.iter().find(|(_, claim)| claim.name == *name && has_number(claim.state));
        let attempt = found.map(|(attempt, _)| *attempt)?;
        self.release_at_once(attempt, now_ms);
        Some(attempt)
    }

    fn release_at_once(&mut self, attempt: u64, now_ms: u64) {
        if let Some(claim) = self.claims.get_mut(&attempt) {
            (claim.state, claim.ask_ms) = (State::Released, now_ms);
        }
        self.tick(now_ms);
    }

    /// Whoever used a claim has disappeared without releasing it. It is released when the voters would free it if it was
    /// not renewed any more, and not when what depends on it begins to be killed.
    pub fn abandon(&mut self, attempt: u64, now_ms: u64) {
        let Some(claim) = self.claims.get_mut(&attempt) else { return };
        let (number, since_ms) = match claim.state {
            State::Wanted => return self.release_at_once(attempt, now_ms),
            State::Held { number, renewed_ms } | State::Lost { number, renewed_ms } => (number, renewed_ms),
            State::Abandoned { .. } | State::Released => return,
        };
        claim.state = State::Abandoned { number };
        claim.ask_ms = since_ms + free_after_ms(claim.ttl_ms);
    }

    /// Asks for the list of claims, and returns the number of the query.
    pub fn list(&mut self, now_ms: u64) -> u64 {
        self.last_id += 1;
        let query = self.last_id;
        self.queries.insert(query, now_ms);
        self.tick(now_ms);
        query
    }

    /// Nobody waits for this query any more.
    pub fn forget(&mut self, query: u64) {
        self.queries.remove(&query);
    }

    /// The connection to a voter was lost, so its answers will not come.
    pub fn lost(&mut self, voter: Index, now_ms: u64) {
        if voter == self.target {
            self.next_target();
        }
        let sent = std::mem::take(&mut self.sent);
        let (gone, rest): (BTreeMap<_, _>, _) = sent.into_iter().partition(|(_, sent)| sent.to == voter);
        self.sent = rest;
        for sent in gone.into_values() {
            self.again(&sent.what, now_ms + NO_LEADER_MS);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn wake_ms(&self) -> Option<u64> {
        let asks = self.claims.values().filter_map(|claim| match claim.state {
            State::Wanted | State::Released | State::Abandoned { .. } => Some(claim.ask_ms),
            State::Held { renewed_ms, .. } => Some(renewed_ms + lost_after_ms(claim.ttl_ms)),
            State::Lost { .. } => None,
        });
        let answers = self.sent.values().map(|sent| sent.at_ms + ANSWER_MS);
        asks.chain(answers).chain(self.renewals.values().copied()).chain(self.queries.values().copied()).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        let silent: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, sent)| now_ms >= sent.at_ms + ANSWER_MS)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            let Some(sent) = self.sent.remove(&id) else { continue };
            if sent.to == self.target {
                self.next_target();
            }
            self.again(&sent.what, now_ms);
        }
        self.give_up(now_ms);
        let mut asks = Vec::new();
        for (attempt, claim) in &mut self.claims {
            if now_ms < claim.ask_ms {
                continue;
            }
            if matches!(claim.state, State::Abandoned { .. }) {
                claim.state = State::Released;
            }
            let (start, ttl_ms, attempt) = (self.start, claim.ttl_ms, *attempt);
            let ask = match claim.state {
                State::Wanted => Ask::Acquire { name: claim.name.clone(), start, ttl_ms, attempt },
                State::Released => Ask::Release { start, ttl_ms, attempt },
                State::Held { .. } | State::Lost { .. } | State::Abandoned { .. } => continue,
            };
            claim.ask_ms = now_ms + ASK_AGAIN_MS;
            let what =
                if claim.state == State::Wanted { What::Acquire(attempt) } else { What::Release(attempt) };
            asks.push((ask, what));
        }
        for (ttl_ms, renew_ms) in &mut self.renewals {
            if now_ms >= *renew_ms {
                *renew_ms = now_ms + renew_after_ms(*ttl_ms);
                let held = |claim: &Claiming| !matches!(claim.state, State::Wanted | State::Released);
                let of_lease = self.claims.iter().filter(|(_, claim)| claim.ttl_ms == *ttl_ms && held(claim));
                let attempts: Vec<u64> = of_lease.map(|(attempt, _)| *attempt).collect();
                let digest = digest(attempts.iter().copied());
                let ask = Ask::Renew { start: self.start, ttl_ms: *ttl_ms, digest };
                asks.push((ask, What::Renew(*ttl_ms, attempts)));
            }
        }
        for (query, ask_ms) in &mut self.queries {
            if now_ms >= *ask_ms {
                *ask_ms = now_ms + ASK_AGAIN_MS;
                asks.push((Ask::List, What::List(*query)));
            }
        }
        for (ask, what) in asks {
            self.send(ask, what, now_ms);
        }
    }

    /// Handles the reply of a voter.
    pub fn receive(&mut self, reply: Reply, now_ms: u64) {
        // What ran out while the reply waited to be read does not come back.
        self.give_up(now_ms);
        if let Answer::Freed(name) = &reply.answer {
            for claim in self.claims.values_mut().filter(|claim| claim.name == *name) {
                if claim.state == State::Wanted {
                    claim.ask_ms = now_ms;
                }
            }
            return self.tick(now_ms);
        }
        let Some(sent) = self.sent.remove(&reply.id) else { return };
        match (sent.what, reply.answer) {
            (what, Answer::NoLeader) => {
                if sent.to == self.target {
                    self.next_target();
                }
                self.again(&what, now_ms + NO_LEADER_MS);
            }
            (What::Acquire(attempt), Answer::Granted(number)) => {
                self.granted(attempt, number, sent.at_ms, now_ms);
            }
            (What::Acquire(attempt), Answer::Busy(claim)) => self.events.push(Event::Busy(attempt, claim)),
            (What::Acquire(attempt), Answer::Full) => self.events.push(Event::Full(attempt)),
            (What::Renew(ttl_ms, attempts), Answer::Renewed) => {
                for attempt in attempts {
                    self.renewed(attempt, ttl_ms, sent.at_ms);
                }
            }
            (What::Renew(ttl_ms, attempts), Answer::Differs(known)) => {
                for attempt in attempts {
                    if known.iter().any(|(other, _)| *other == attempt) {
                        self.renewed(attempt, ttl_ms, sent.at_ms);
                    } else if let Some(claim) = self.claims.get_mut(&attempt)
                        && let State::Held { number, renewed_ms } = claim.state
                    {
                        claim.state = State::Lost { number, renewed_ms };
                        self.events.push(Event::Lost(attempt, Loss::Revoked));
                    }
                }
                self.release_unknown(ttl_ms, &known, now_ms);
            }
            (What::Release(attempt), Answer::Released) => {
                if self.claims.get(&attempt).is_some_and(|claim| claim.state == State::Released) {
                    self.claims.remove(&attempt);
                }
                self.prune_renewals();
            }
            (What::List(query), Answer::Claims(table)) => {
                if self.queries.remove(&query).is_some() {
                    self.events.push(Event::Listed(query, table));
                }
            }
            // A voter that answers something else is asked again.
            (what, _) => self.again(&what, now_ms + ASK_AGAIN_MS),
        }
        self.tick(now_ms);
    }

    fn granted(&mut self, attempt: u64, number: u64, sent_ms: u64, now_ms: u64) {
        let Some(claim) = self.claims.get_mut(&attempt) else { return };
        // One that was given up meanwhile is being released. A grant that was read too late is asked for again.
        if claim.state == State::Wanted && now_ms < sent_ms + lost_after_ms(claim.ttl_ms) {
            claim.state = State::Held { number, renewed_ms: sent_ms };
            let until = until(sent_ms, claim.ttl_ms);
            self.events.push(Event::Granted(attempt, number, until));
            let renew_ms = sent_ms + renew_after_ms(claim.ttl_ms);
            self.renewals.entry(claim.ttl_ms).or_insert(renew_ms);
        }
    }

    fn renewed(&mut self, attempt: u64, ttl_ms: u32, sent_ms: u64) {
        if let Some(claim) = self.claims.get_mut(&attempt)
            && let State::Held { renewed_ms, .. } = &mut claim.state
            && sent_ms > *renewed_ms
        {
            *renewed_ms = sent_ms;
            self.events.push(Event::Renewed(attempt, until(sent_ms, ttl_ms)));
        }
    }

    /// Claims that the voters keep for this member and nobody here knows, because a grant overtook a release.
    fn release_unknown(&mut self, ttl_ms: u32, known: &[(u64, u64)], now_ms: u64) {
        let unknown: Vec<u64> = known
            .iter()
            .map(|(attempt, _)| *attempt)
            .filter(|attempt| !self.claims.contains_key(attempt))
            .collect();
        for attempt in unknown {
            let ask = Ask::Release { start: self.start, ttl_ms, attempt };
            self.send(ask, What::Release(attempt), now_ms);
        }
    }

    fn give_up(&mut self, now_ms: u64) {
        for (attempt, claim) in &mut self.claims {
            if let State::Held { number, renewed_ms } = claim.state
                && now_ms >= renewed_ms + lost_after_ms(claim.ttl_ms)
            {
                claim.state = State::Lost { number, renewed_ms };
                self.events.push(Event::Lost(*attempt, Loss::NotRenewed));
            }
        }
        self.prune_renewals();
    }

    fn prune_renewals(&mut self) {
        let claims = &self.claims;
        self.renewals.retain(|ttl_ms, _| {
            claims.values().any(|claim| claim.ttl_ms == *ttl_ms && matches!(claim.state, State::Held { .. }))
        });
    }

    /// Asks for something again at this time, unless it is no longer wanted.
    fn again(&mut self, what: &What, at_ms: u64) {
        match what {
            What::Acquire(attempt) | What::Release(attempt) => {
                if let Some(claim) = self.claims.get_mut(attempt) {
                    claim.ask_ms = claim.ask_ms.min(at_ms);
                }
            }
            What::Renew(ttl_ms, _) => {
                if let Some(renew_ms) = self.renewals.get_mut(ttl_ms) {
                    *renew_ms = at_ms.min(*renew_ms);
                }
            }
            What::List(query) => {
                if let Some(ask_ms) = self.queries.get_mut(query) {
                    *ask_ms = at_ms.min(*ask_ms);
                }
            }
        }
    }

    fn send(&mut self, ask: Ask, what: What, now_ms: u64) {
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_first();
        }
        self.last_id += 1;
        self.sent.insert(self.last_id, Sent { to: self.target, at_ms: now_ms, what });
        self.requests.push((self.target, Request { id: self.last_id, ask }));
    }

    fn next_target(&mut self) {
        self.target = (self.target + 1) % self.voters;
    }
}

fn until(sent_ms: u64, ttl_ms: u32) -> Until {
    Until { lost_ms: sent_ms + lost_after_ms(ttl_ms), dead_ms: sent_ms + dead_after_ms(ttl_ms) }
}
