//! The table of claims that the voters agree on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::ClaimName;
use crate::limits::MAX_CLAIMS;
use crate::peer::id::NodeId;

/// The lowest bits of a claim number count from the founding on, whose number is in minutes. Numbers stay below those of
/// later foundings as long as fewer than 2^28 claims a minute are granted, and below 2^53 for more than 60 years.
const COUNTER_BITS: u32 = 28;

/// What keeps claims held: a daemon that renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The daemon.
    pub member: NodeId,
    /// Its start: one that restarts does not hold what it held.
    pub start: u64,
    /// The duration.
    pub ttl_ms: u32,
}

/// A claim that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// By whom.
    pub lease: Lease,
    /// Distinguishes the claims of a lease.
    pub attempt: u64,
    /// The fencing number: each claim gets a higher one than all before.
    pub number: u64,
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Grants a name, if it is free.
    Grant {
        /// The name.
        name: ClaimName,
        /// To whom.
        lease: Lease,
        /// See [`Claim::attempt`].
        attempt: u64,
    },
    /// Frees the claim of this attempt.
    Release {
        /// Whose.
        lease: Lease,
        /// The attempt.
        attempt: u64,
    },
    /// Frees all claims of a lease.
    Expire(Lease),
}

/// All claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    last_number: u64,
    claims: BTreeMap<ClaimName, Claim>,
}

impl Table {
    /// The table at the founding with this number.
    #[must_use]
    pub fn new(founding: u64) -> Table {
        Table { last_number: founding << COUNTER_BITS, claims: BTreeMap::new() }
    }

    /// Applies a change, and returns the names that are free afterwards and were not before.
    pub fn apply(&mut self, change: &Change) -> Vec<ClaimName> {
        let is_over = |claim: &Claim| match change {
            Change::Grant { .. } => false,
            Change::Release { lease, attempt } => claim.lease == *lease && claim.attempt == *attempt,
            Change::Expire(lease) => claim.lease == *lease,
        };
        let mut freed = Vec::new();
        self.claims.retain(|name, claim| {
            let over = is_over(claim);
            if over {
                freed.push(name.clone());
            }
            !over
        });
        if let Change::Grant { name, lease, attempt } = change
            && !self.claims.contains_key(name)
            && self.claims.len() < MAX_CLAIMS
        {
            self.last_number = self.last_number.saturating_add(1);
            let claim = Claim { lease: *lease, attempt: *attempt, number: self.last_number };
            self.claims.insert(name.clone(), claim);
        }
        freed
    }

    /// The claim of this name.
    #[must_use]
    pub fn get(&self, name: &ClaimName) -> Option<&Claim> {
        self.claims.get(name)
    }

    /// All claims, by name.
    pub fn claims(&self) -> impl Iterator<Item = (&ClaimName, &Claim)> {
        self.claims.iter()
    }

    /// The claims of a lease.
    pub fn of(&self, lease: Lease) -> impl Iterator<Item = &Claim> {
        self.claims.values().filter(move |claim| claim.lease == lease)
    }

    /// Whether there is no room for another claim.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.claims.len() >= MAX_CLAIMS
    }

    /// The number of the latest claim.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last_number
    }
}
