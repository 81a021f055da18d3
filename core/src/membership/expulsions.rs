//! The members that were expelled, and the decisions behind that.
//!
//! A decision is made on one daemon by its administrator, signed by that daemon, and spread to all others, which remember
//! it and refuse the member from then on. Of two decisions about one member the later one counts, so sets of decisions
//! merge like replicas: in any order, and however often they arrive.
//!
//! Whose decisions count is configured: those of all members, or of some. Nothing else could tell an administrator from
//! an intruder on a member's host.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::HostName;
use pmd_protocol::peer::{Expulsion, NodeId, Signature};

use crate::attest::{Keys, id_of};

/// The number of decisions that are remembered.
pub const MAX_DECISIONS: usize = 1_024;

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
    /// Its author has not signed it.
    Forged,
}

/// All decisions that count.
#[derive(Clone, Debug, Default)]
pub struct Expulsions {
    administrators: Administrators,
    decisions: BTreeMap<NodeId, Expulsion>,
}

impl Expulsions {
    /// No decisions yet.
    #[must_use]
    pub fn new(administrators: Administrators) -> Self {
        Self { administrators, decisions: BTreeMap::new() }
    }

    /// Whether a member is expelled.
    #[must_use]
    pub fn is_expelled(&self, id: &NodeId) -> bool {
        self.decisions.get(id).is_some_and(|decision| decision.expelled)
    }

    /// The latest decision about a member.
    #[must_use]
    pub fn about(&self, id: &NodeId) -> Option<&Expulsion> {
        self.decisions.get(id)
    }

    /// All decisions, readmissions included.
    pub fn iter(&self) -> impl Iterator<Item = &Expulsion> {
        self.decisions.values()
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
        let before = self.decisions.get(&member).map_or(0, |known| known.decided_ms);
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

    /// Merges a decision. One dated after `latest_ms` is ignored, so that no decision can be final.
    pub fn merge(&mut self, keys: &dyn Keys, latest_ms: u64, decision: Expulsion) -> Heard {
        let known = self.decisions.get(&decision.member);
        if known.is_some_and(|known| order(known) >= order(&decision)) {
            return Heard::Known;
        }
        let author = id_of(&decision.author);
        let counts = decision.author == keys.public_key() || self.administrators.include(&author);
        let readmits_itself = !decision.expelled && author == decision.member;
        let is_out = self
            .decisions
            .get(&author)
            .is_some_and(|about| about.expelled && about.decided_ms < decision.decided_ms);
        if !counts || readmits_itself || is_out || decision.decided_ms > latest_ms {
            return Heard::Ignored;
        }
        if !keys.verify(&decision.author, &message(&decision), &decision.signature) {
            return Heard::Forged;
        }
        let is_full = known.is_none() && self.decisions.len() >= MAX_DECISIONS;
        let forgotten = if is_full { self.forget_one() } else { None };
        self.decisions.insert(decision.member, decision);
        Heard::New(forgotten)
    }

    /// Forgets the oldest decision of the author with the most, so that none can prevent the decisions of others. Returns
    /// the member that it was about.
    fn forget_one(&mut self) -> Option<NodeId> {
        let mut authors: BTreeMap<_, usize> = BTreeMap::new();
        for decision in self.decisions.values() {
            *authors.entry(&decision.author).or_default() += 1;
        }
        let (busiest, _) = authors.into_iter().max_by_key(|(_, count)| *count)?;
        let theirs = self.decisions.values().filter(|decision| decision.author == *busiest);
        // What was taken back matters least.
        let oldest = theirs.min_by_key(|decision| (decision.expelled, decision.decided_ms));
        let member = oldest.map(|decision| decision.member)?;
        self.decisions.remove(&member);
        Some(member)
    }
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
