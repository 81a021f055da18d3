//! The members that were expelled, and the decisions behind that.
//!
//! A decision is made on one daemon by its administrator, signed by that daemon, and spread to all others, which remember
//! it and refuse the member from then on. Of two decisions about one member the later one counts, so sets of decisions
//! merge like replicas: in any order, and however often they arrive.
//!
//! Whose decisions count is configured: those of all members, or of some. Nothing else could tell an administrator from
//! an intruder on a member's host.
//!
//! An author need not be known, because decisions outlive their authors. So where those of all members count, an intruder
//! can make up authors. It cannot flood the cluster with them or displace other decisions: each author and each peer that
//! names new authors has a rate, and when there is no room, decisions of authors that are no members give way first, those
//! that came last over the link that brought most.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::HostName;
use pmd_protocol::peer::{Expulsion, NodeId, Signature};

use super::pace::{Pace, Paces};
use crate::attest::{Keys, id_of};

/// The number of decisions that are remembered.
pub const MAX_DECISIONS: usize = 1_024;
/// The number of decisions of one author beyond which its oldest give way first when there is no room.
const SHARE: usize = MAX_DECISIONS / 8;
/// How many decisions of one author are taken: a newcomer hears of all at once, and nobody decides more often by hand.
const OF_AUTHOR: Pace = Pace { burst: MAX_DECISIONS as u64, every_ms: 1_000 };
/// How many authors that are no members a peer may name. A newcomer hears of all of them at once, but it has several peers,
/// and few clusters had more administrators that are gone.
const NEW_AUTHORS: Pace = Pace { burst: 32, every_ms: 60_000 };

/// The daemons whose decisions count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Administrators {
    /// All members.
    #[default]
    All,
    /// These daemons, and this daemon itself.
    Only(BTreeSet<NodeId>),
}

impl Administrators {
    /// Whether the decisions of this daemon count for all that have this setting.
    #[must_use]
    pub fn include(&self, id: &NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(id),
        }
    }
}

/// What came of a decision that another daemon has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is new, and counts from now on. There may have been no room for it but in place of the decision about this
    /// member.
    New(Option<NodeId>),
    /// It was known, or a later one is known.
    Known,
    /// It does not count here: its author is not an administrator or was expelled before, or readmits itself, or its time
    /// is in the far future.
    Ignored,
    /// It is one of too many by this author or from this peer, or there is no room for it.
    TooMany(NodeId),
    /// Its author has not signed it.
    Forged,
}

/// The circumstances in which a decision is merged.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a, M> {
    /// The keys of this daemon, and the check of signatures.
    pub keys: &'a dyn Keys,
    /// The peer that has sent it; `None` if it was made here, or is remembered from an earlier run.
    pub from: Option<NodeId>,
    /// Whether a daemon is known as a member, dead or alive.
    pub is_member: M,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Decisions with a later date are ignored, so that no decision can be final; milliseconds since the Unix epoch.
    pub latest_ms: u64,
}

/// A decision that counts.
#[derive(Clone, Debug)]
struct Held {
    decision: Expulsion,
    author: NodeId,
    /// The peer that has sent it first.
    from: Option<NodeId>,
    /// The place in the order in which the decisions have come.
    number: u64,
}

/// All decisions that count.
#[derive(Clone, Debug)]
pub struct Expulsions {
    administrators: Administrators,
    /// By the member that they are about.
    decisions: BTreeMap<NodeId, Held>,
    authors: Paces,
    peers: Paces,
    next_number: u64,
}

impl Default for Expulsions {
    fn default() -> Self {
        Self::new(Administrators::default())
    }
}

impl Expulsions {
    /// No decisions yet.
    #[must_use]
    pub fn new(administrators: Administrators) -> Self {
        Self {
            administrators,
            decisions: BTreeMap::new(),
            authors: Paces::new(OF_AUTHOR),
            peers: Paces::new(NEW_AUTHORS),
            next_number: 0,
        }
    }

    /// Whether a member is expelled.
    #[must_use]
    pub fn is_expelled(&self, id: &NodeId) -> bool {
        self.about(id).is_some_and(|decision| decision.expelled)
    }

    /// The latest decision about a member.
    #[must_use]
    pub fn about(&self, id: &NodeId) -> Option<&Expulsion> {
        self.decisions.get(id).map(|held| &held.decision)
    }

    /// All decisions, readmissions included.
    pub fn iter(&self) -> impl Iterator<Item = &Expulsion> {
        self.decisions.values().map(|held| &held.decision)
    }

    /// A decision of this daemon about a member, which is on the host `host`. It still has to be
    /// [merged](Self::merge). `now_ms` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn decide(
        &self,
        keys: &dyn Keys,
        now_ms: u64,
        (member, host): (NodeId, String),
        by: &HostName,
        expelled: bool,
    ) -> Expulsion {
        let before = self.about(&member).map_or(0, |known| known.decided_ms);
        let mut decision = Expulsion {
            member,
            decided_ms: now_ms.max(before.saturating_add(1)),
            expelled,
            host,
            by: by.as_str().to_owned(),
            author: keys.public_key(),
            signature: Signature::default(),
        };
        decision.signature = keys.sign(&message(&decision));
        decision
    }

    /// Merges a decision.
    pub fn merge<M>(&mut self, circumstances: &Circumstances<'_, M>, decision: Expulsion) -> Heard
    where
        M: Fn(&NodeId) -> bool,
    {
        let &Circumstances { keys, from, now_ms, latest_ms, ref is_member } = circumstances;
        let member = decision.member;
        if self.about(&member).is_some_and(|known| order(known) >= order(&decision)) {
            return Heard::Known;
        }
        let author = id_of(&decision.author);
        let counts = decision.author == keys.public_key() || self.administrators.include(&author);
        let readmits_itself = !decision.expelled && author == member;
        let is_out =
            self.about(&author).is_some_and(|about| about.expelled && about.decided_ms < decision.decided_ms);
        if !counts || readmits_itself || is_out || decision.decided_ms > latest_ms {
            return Heard::Ignored;
        }
        let naming = from.filter(|peer| *peer != author && self.is_new(&author, is_member));
        // Before the signature, which costs the most.
        if let Some(peer) = naming.filter(|peer| !self.peers.allow(now_ms, peer)) {
            return Heard::TooMany(peer);
        }
        if from.is_some() && !self.authors.allow(now_ms, &author) {
            return Heard::TooMany(author);
        }
        if !keys.verify(&decision.author, &message(&decision), &decision.signature) {
            return Heard::Forged;
        }
        if let Some(peer) = naming {
            self.peers.count(now_ms, peer);
        }
        if from.is_some() {
            self.authors.count(now_ms, author);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.decisions.insert(member, Held { decision, author, from, number });
        match self.give_way(is_member) {
            // There was no room for it.
            Some(forgotten) if forgotten == member => Heard::TooMany(from.unwrap_or(author)),
            forgotten => Heard::New(forgotten),
        }
    }

    /// Whether a daemon is neither a member nor a configured administrator nor the author of a decision that counts.
    fn is_new(&self, author: &NodeId, is_member: impl Fn(&NodeId) -> bool) -> bool {
        self.administrators == Administrators::All
            && !is_member(author)
            && self.decisions.values().all(|held| held.author != *author)
    }

    /// If there are too many decisions, forgets one. Returns the member that it was about.
    fn give_way(&mut self, is_member: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        if self.decisions.len() <= MAX_DECISIONS {
            return None;
        }
        let all = || self.decisions.values();
        let busiest = most(all().map(|held| held.author)).filter(|(_, count)| *count > SHARE);
        let victim = if let Some((author, _)) = busiest {
            let theirs = all().filter(|held| held.author == author);
            // What was taken back matters least.
            theirs.min_by_key(|held| (held.decision.expelled, held.decision.decided_ms))
        } else {
            // Those of authors that are members stay as long as there are others.
            let only_members = all().all(|held| is_member(&held.author));
            let candidates = || all().filter(|held| only_members || !is_member(&held.author));
            let (peer, _) = most(candidates().map(|held| held.from))?;
            let theirs = candidates().filter(|held| held.from == peer);
            // What was decided here last must count.
            if peer.is_some() {
                theirs.max_by_key(|held| held.number)
            } else {
                theirs.min_by_key(|held| held.number)
            }
        };
        let member = victim.map(|held| held.decision.member)?;
        self.decisions.remove(&member);
        Some(member)
    }
}

/// The value that occurs most often, and how often.
fn most<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<(T, usize)> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count)
}

/// Of two decisions about one member, the greater one counts. An expulsion counts if both were made at the same time.
fn order(decision: &Expulsion) -> (u64, bool, &[u8]) {
    (decision.decided_ms, decision.expelled, decision.author.as_bytes())
}

fn message(decision: &Expulsion) -> Vec<u8> {
    let unsigned = Expulsion { signature: Signature::default(), ..decision.clone() };
    // Writing to memory cannot fail for this type.
    let fields = postcard::to_allocvec(&unsigned).unwrap_or_default();
    [b"pmd expulsion 2".as_slice(), &fields].concat()
}
