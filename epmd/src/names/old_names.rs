//! Names that are no longer registered, with their last creations.
//!
//! They are remembered so that a restarted node gets a creation that its predecessor did not have, even if the clock
//! does not advance. The memory is bounded as in stock epmd: if more than the threshold are remembered when a *new*
//! name arrives, the oldest record is dropped and the newcomer inherits its counter.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The record of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldName {
    /// The name.
    pub name: Arc<str>,
    /// The creation of its last registration.
    pub creation: u32,
    /// The distribution port of its last registration.
    pub port: u16,
    /// The descriptor number of its last connection, for DUMP.
    pub descriptor: i32,
}

/// The remembered names, oldest first.
#[derive(Debug)]
pub struct OldNames {
    threshold: usize,
    next: u64,
    by_age: BTreeMap<u64, OldName>,
    by_name: HashMap<Arc<str>, u64>,
}

impl OldNames {
    /// Remembers nothing yet; starts to forget beyond `threshold` names.
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

    /// Removes and returns the record of a name that is registered again.
    pub fn recall(&mut self, name: &str) -> Option<OldName> {
        let age = self.by_name.remove(name)?;
        self.by_age.remove(&age)
    }

    /// Removes and returns the oldest record if more than the threshold are remembered. Called for a new name.
    pub fn recycle(&mut self) -> Option<OldName> {
        if self.by_age.len() <= self.threshold {
            return None;
        }
        let (_, old) = self.by_age.pop_first()?;
        self.by_name.remove(&old.name);
        Some(old)
    }

    /// All remembered names, in the order in which they were unregistered.
    pub fn iter(&self) -> impl Iterator<Item = &OldName> {
        self.by_age.values()
    }

    /// The number of remembered names.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether no name is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }
}
