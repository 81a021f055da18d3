//! The table that lookups are answered from.
//!
//! It is sharded by the hash of the name, so that lookups on several threads rarely contend with a writer. A lock is
//! held for one lookup or one change, never longer.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};

use pmd_protocol::epmd::Alive2;

use super::table::{ByName, Registration};

/// The number of shards: many more than threads, so that two threads rarely need the same one.
const SHARDS: usize = 64;

/// Registrations by name.
#[derive(Debug)]
pub struct LookupTable<H> {
    hasher: RandomState,
    shards: [RwLock<HashSet<ByName<H>, RandomState>>; SHARDS],
}

impl<H> LookupTable<H> {
    /// An empty table.
    #[must_use]
    pub fn new() -> LookupTable<H> {
        let hasher = RandomState::new();
        let shards = std::array::from_fn(|_| RwLock::new(HashSet::with_hasher(hasher.clone())));
        LookupTable { hasher, shards }
    }

    /// Passes the registration of `name` to `answer`; returns false if there is none.
    pub fn find(&self, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
        match shard.get(name) {
            Some(entry) => {
                answer(&entry.0.alive2());
                true
            }
            None => false,
        }
    }

    /// Makes a registration visible to lookups, in place of an earlier one of the same name.
    pub fn publish(&self, entry: Arc<Registration<H>>) {
        let mut shard = self.shard(&entry.name).write().unwrap_or_else(PoisonError::into_inner);
        shard.replace(ByName(entry));
    }

    /// Hides the registration `id` of `name`.
    pub fn withdraw(&self, name: &str, id: u64) {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(name).is_some_and(|entry| entry.0.id == id) {
            shard.remove(name);
        }
    }

    fn shard(&self, name: &str) -> &RwLock<HashSet<ByName<H>, RandomState>> {
        // The high bits choose the shard, because the table inside it uses the low ones.
        let hash = self.hasher.hash_one(name);
        let index = usize::try_from(hash >> 58).unwrap_or_default();
        &self.shards[index % SHARDS]
    }
}

impl<H> Default for LookupTable<H> {
    fn default() -> Self {
        LookupTable::new()
    }
}
