//! Names that were registered once, and the creation each of them had last.
//!
//! They are remembered so that a restarted node gets a creation its predecessor did not have even if the clock
//! stands still. The memory is bounded the way stock epmd bounds it: the oldest record goes when a name that
//! is *new* arrives while more than the threshold are remembered, and the newcomer inherits its counter.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is remembered of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldName {
    /// The name.
    pub name: Arc<str>,
    /// The creation of its last life.
    pub creation: u32,
    /// The distribution port of its last life.
    pub port: u16,
    /// The number of the descriptor its connection had, for DUMP.
    pub descriptor: i32,
}

/// The memory of old names, oldest first.
#[derive(Debug)]
pub struct OldNames {
    threshold: usize,
    next: u64,
    by_age: BTreeMap<u64, OldName>,
    by_name: HashMap<Arc<str>, u64>,
}

impl OldNames {
    /// An empty memory that starts to forget beyond `threshold` names.
    pub fn new(threshold: usize) -> OldNames {
        OldNames { threshold, next: 0, by_age: BTreeMap::new(), by_name: HashMap::new() }
    }

    /// Remembers a name that was just unregistered.
    pub fn remember(&mut self, old: OldName) {
        let age = self.next;
        self.next += 1;
        if let Some(previous) = self.by_name.insert(Arc::clone(&old.name), age) {
            self.by_age.remove(&previous);
        }
        self.by_age.insert(age, old);
    }

    /// Takes a returning name out of the memory.
    pub fn recall(&mut self, name: &str) -> Option<OldName> {
        let age = self.by_name.remove(name)?;
        self.by_age.remove(&age)
    }

    /// Takes the oldest name out, if more than the threshold are remembered: called for a name that is new.
    pub fn recycle(&mut self) -> Option<OldName> {
        if self.by_age.len() <= self.threshold {
            return None;
        }
        let (_, old) = self.by_age.pop_first()?;
        self.by_name.remove(&old.name);
        Some(old)
    }

    /// All remembered names, the one unregistered longest ago first.
    pub fn iter(&self) -> impl Iterator<Item = &OldName> {
        self.by_age.values()
    }

    /// How many names are remembered.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether no name is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }
}
