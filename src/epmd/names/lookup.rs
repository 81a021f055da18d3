//! The read model that look-ups are answered from.
//!
//! Split into shards by the hash of the name, so that look-ups on several threads hardly ever meet a writer.
//! A lock is held for one look-up or one change, never longer.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};

use super::table::{ByName, Registration};

/// Shards: many more than threads, so that two threads rarely want the same one.
const SHARDS: usize = 64;

/// Names to ready-made answers.
#[derive(Debug)]
pub struct Directory<H> {
    hasher: RandomState,
    shards: [RwLock<HashSet<ByName<H>, RandomState>>; SHARDS],
}

impl<H> Directory<H> {
    /// An empty directory.
    pub fn new() -> Directory<H> {
        let hasher = RandomState::new();
        let shards = std::array::from_fn(|_| RwLock::new(HashSet::with_hasher(hasher.clone())));
        Directory { hasher, shards }
    }

    /// Appends the PORT2_RESP for `name` to `out`; false if no such name is registered.
    pub fn answer(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
        match shard.get(name) {
            Some(entry) => {
                out.extend_from_slice(&entry.0.reply);
                true
            }
            None => false,
        }
    }

    /// Makes a registration visible to look-ups, in the place of an earlier one of the same name.
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
        // The high bits choose the shard: the table inside it uses the low ones.
        let hash = self.hasher.hash_one(name);
        let index = usize::try_from(hash >> 58).unwrap_or_default();
        &self.shards[index % SHARDS]
    }
}

impl<H> Default for Directory<H> {
    fn default() -> Self {
        Directory::new()
    }
}
