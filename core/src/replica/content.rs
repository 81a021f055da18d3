//! What is registered at one origin, at one version of one of its lives.
//!
//! Only the origin itself puts and deletes. Each operation gets the next version and is the only one that ever has it,
//! so the content *is a function of life and version*, and a replica needs no more than the latest operation on each
//! key: what the key held in between is nobody's business. This is a delta-state CRDT (P. S. Almeida, A. Shoker,
//! C. Baquero, "Delta State Replicated Data Types", 2018) of the simplest kind: with one writer the join is a maximum.
//!
//! ```text
//!   puts     version ─▶ key     one for each entry           ┐ together the latest operation on each key:
//!   graves   version ─▶ key     one for each remembered      ┘ a delta is everything above a version
//!                               deletion
//!   floor    graves at or below are forgotten: from a version below the floor there is no delta, only a snapshot
//! ```
//!
//! Two daemons that write under one identity (a cloned image, a virtual machine restored from memory) produce
//! different content under one version. The digest of the content finds that: a replica computes what its content
//! would be *before* it applies a delta, and refuses if that is not what the sender says.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use pmd_protocol::peer::{Digest, Generation, Key, Op, Stamp, Value, Version};
use sha2::{Digest as _, Sha256};

/// Entries of one origin. See the module.
#[derive(Clone, Debug)]
pub struct Content {
    stamp: Stamp,
    entries: BTreeMap<Arc<Key>, Slot>,
    puts: BTreeMap<Version, Arc<Key>>,
    graves: BTreeMap<Version, Arc<Key>>,
    buried: BTreeMap<Arc<Key>, Version>,
    floor: Version,
}

/// Equal in everything, what is remembered of deletions included. `puts` and `buried` follow from the rest.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.stamp == other.stamp
            && self.floor == other.floor
            && self.graves == other.graves
            && self.entries == other.entries
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    version: Version,
    value: Value,
}

/// What an operation or a transfer did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Arc<Key>,
    /// What it held, if anything.
    pub before: Option<Value>,
    /// What it holds now, if anything.
    pub after: Option<Value>,
}

/// Why operations were not applied. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// They are not what any honest sender sends: close the link.
    #[error("{0}")]
    Malformed(&'static str),
    /// They do not lead to what the sender has: the two have different pasts. Take a snapshot.
    #[error("operations lead to other content than the sender's")]
    Contradiction,
}

impl Content {
    /// The content at the beginning of a life: none.
    #[must_use]
    pub fn new(generation: Generation) -> Self {
        Self {
            stamp: Stamp::start(generation),
            entries: BTreeMap::new(),
            puts: BTreeMap::new(),
            graves: BTreeMap::new(),
            buried: BTreeMap::new(),
            floor: Version::ZERO,
        }
    }

    /// Which content this is. Two contents with equal stamps have equal entries.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).map(|slot| &slot.value)
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Key>, &Value)> {
        self.entries.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many deletions are remembered.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.graves.len()
    }

    /// The lowest version from which there is a delta.
    #[must_use]
    pub fn floor(&self) -> Version {
        self.floor
    }

    /// The origin's operation: `key` holds `value` from now on. `None` if it does already.
    pub fn put(&mut self, key: Key, value: Value) -> Option<Change> {
        if self.get(&key) == Some(&value) {
            return None;
        }
        let version = self.stamp.version.next();
        self.stamp.version = version;
        Some(self.set(version, Arc::new(key), value))
    }

    /// The origin's operation: `key` holds nothing from now on. `None` if it does not anyway.
    pub fn delete(&mut self, key: &Key) -> Option<Change> {
        let (key, _) = self.entries.get_key_value(key)?;
        let key = Arc::clone(key);
        let version = self.stamp.version.next();
        self.stamp.version = version;
        Some(self.unset(version, key))
    }

    /// Forgets the oldest deletions until at most `window` are left.
    pub fn trim(&mut self, window: usize) {
        while self.graves.len() > window {
            let Some((version, key)) = self.graves.pop_first() else { return };
            self.buried.remove(&key);
            self.floor = version;
        }
    }

    /// Whether the operations since `from` are known. If not, only a snapshot helps.
    #[must_use]
    pub fn reaches_back_to(&self, from: Version) -> bool {
        (self.floor..=self.stamp.version).contains(&from)
    }

    /// The latest operation on each key that was touched after `from`, by version. Complete only if
    /// [`reaches_back_to`](Self::reaches_back_to) says so.
    pub fn ops_after(&self, from: Version) -> impl Iterator<Item = (Version, Op)> {
        let first = from.next();
        Merged { puts: self.puts.range(first..).peekable(), graves: self.graves.range(first..).peekable() }
            .filter_map(|(version, key)| Some((version, self.op(key)?)))
    }

    /// All entries as operations, by the version that put them, from the one after `from`.
    pub fn entries_after(&self, from: Version) -> impl Iterator<Item = (Version, Op)> {
        self.puts.range(from.next()..).filter_map(|(version, key)| Some((*version, self.op(key)?)))
    }

    /// Applies a delta that starts at or below the version of this content and leads to `to` in the same life.
    ///
    /// # Errors
    ///
    /// If it does not lead there. The content is as before then.
    pub fn extend(
        &mut self,
        from: Version,
        to: Stamp,
        ops: Vec<(Version, Op)>,
    ) -> Result<Vec<Change>, ApplyError> {
        let have = self.stamp;
        if to.generation != have.generation || from > have.version || to.version <= have.version {
            return Err(ApplyError::Malformed("a delta for another base"));
        }
        check_order(from, to.version, &ops)?;
        if ops.last().is_none_or(|(version, _)| *version != to.version) {
            return Err(ApplyError::Malformed("a delta without its last operation"));
        }
        let news = || ops.iter().filter(|(version, _)| *version > have.version);
        let mut digest = have.digest;
        for (version, op) in news() {
            if let Some((key, old)) = self.entries.get_key_value(op.key()) {
                digest = digest.minus(digest_of(old.version, key, &old.value));
            }
            if let Op::Put(key, value) = op {
                digest = digest.plus(digest_of(*version, key, value));
            }
        }
        if digest != to.digest {
            return Err(ApplyError::Contradiction);
        }
        let mut changes = Vec::new();
        for (version, op) in ops.into_iter().filter(|(version, _)| *version > have.version) {
            self.stamp.version = version;
            let change = match op {
                Op::Put(key, value) => self.set(version, Arc::new(key), value),
                Op::Delete(key) => self.unset(version, Arc::new(key)),
            };
            if change.before != change.after {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// Builds the content that a snapshot describes.
    ///
    /// # Errors
    ///
    /// If it is not the content that `stamp` says.
    pub fn from_snapshot(stamp: Stamp, ops: Vec<(Version, Op)>) -> Result<Self, ApplyError> {
        check_order(Version::ZERO, stamp.version, &ops)?;
        let mut content = Self::new(stamp.generation);
        for (version, op) in ops {
            match op {
                Op::Put(key, value) => content.set(version, Arc::new(key), value),
                Op::Delete(_) => return Err(ApplyError::Malformed("a snapshot that deletes")),
            };
        }
        if content.stamp.digest != stamp.digest {
            return Err(ApplyError::Contradiction);
        }
        content.stamp.version = stamp.version;
        // It does not say what was deleted on the way.
        content.floor = stamp.version;
        Ok(content)
    }

    /// The join of two replicas' contents of one origin: that with the greater stamp.
    ///
    /// This is the specification. Deltas and snapshots only get there with fewer bytes.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if other.stamp > self.stamp { other } else { self }
    }

    /// What changes for a reader when `self` is replaced by `newer`.
    #[must_use]
    pub fn changes_to(&self, newer: &Self) -> Vec<Change> {
        let gone =
            self.entries.iter().filter(|(key, _)| !newer.entries.contains_key(*key)).map(|(key, slot)| {
                Change { key: Arc::clone(key), before: Some(slot.value.clone()), after: None }
            });
        let new = newer.entries.iter().filter_map(|(key, slot)| {
            let before = self.get(key);
            (before != Some(&slot.value)).then(|| Change {
                key: Arc::clone(key),
                before: before.cloned(),
                after: Some(slot.value.clone()),
            })
        });
        gone.chain(new).collect()
    }

    /// Whether the two cannot be from one writer: in one life, one version has different meanings.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.stamp.generation != other.stamp.generation {
            return false;
        }
        let differs = |(version, key): (&Version, &Arc<Key>)| {
            let others = other.puts.get(version);
            other.graves.contains_key(version)
                || others.is_some_and(|others| others != key || self.get(key) != other.get(others))
        };
        self.stamp.contradicts(&other.stamp)
            || self.puts.iter().any(differs)
            || self.graves.iter().any(|(version, key)| {
                other.puts.contains_key(version)
                    || other.graves.get(version).is_some_and(|others| others != key)
            })
    }

    fn op(&self, key: &Arc<Key>) -> Option<Op> {
        match self.entries.get(key) {
            Some(slot) => Some(Op::Put(Key::clone(key), slot.value.clone())),
            None if self.buried.contains_key(key) => Some(Op::Delete(Key::clone(key))),
            None => None,
        }
    }

    fn set(&mut self, version: Version, key: Arc<Key>, value: Value) -> Change {
        self.stamp.digest = self.stamp.digest.plus(digest_of(version, &key, &value));
        let before = self.forget(&key);
        self.entries.insert(Arc::clone(&key), Slot { version, value: value.clone() });
        self.puts.insert(version, Arc::clone(&key));
        Change { key, before, after: Some(value) }
    }

    fn unset(&mut self, version: Version, key: Arc<Key>) -> Change {
        let before = self.forget(&key);
        self.graves.insert(version, Arc::clone(&key));
        self.buried.insert(Arc::clone(&key), version);
        Change { key, before, after: None }
    }

    /// Takes out the latest operation on `key`, whichever it was; the value if it was a put.
    fn forget(&mut self, key: &Arc<Key>) -> Option<Value> {
        if let Some(version) = self.buried.remove(key) {
            self.graves.remove(&version);
        }
        let slot = self.entries.remove(key)?;
        self.puts.remove(&slot.version);
        self.stamp.digest = self.stamp.digest.minus(digest_of(slot.version, key, &slot.value));
        Some(slot.value)
    }
}

/// Two maps with different keys as one, in order.
struct Merged<I: Iterator> {
    puts: Peekable<I>,
    graves: Peekable<I>,
}

impl<'a, I: Iterator<Item = (&'a Version, &'a Arc<Key>)>> Iterator for Merged<I> {
    type Item = (Version, &'a Arc<Key>);

    fn next(&mut self) -> Option<Self::Item> {
        let from_puts = match (self.puts.peek(), self.graves.peek()) {
            (Some((put, _)), Some((grave, _))) => put < grave,
            (put, _) => put.is_some(),
        };
        let next = if from_puts { self.puts.next() } else { self.graves.next() };
        next.map(|(version, key)| (*version, key))
    }
}

/// Versions increase and lie in `(from, to]`, and no key appears twice.
fn check_order(from: Version, to: Version, ops: &[(Version, Op)]) -> Result<(), ApplyError> {
    let mut last = from;
    let mut keys = BTreeSet::new();
    for (version, op) in ops {
        if *version <= last || *version > to {
            return Err(ApplyError::Malformed("versions out of order"));
        }
        last = *version;
        if !keys.insert(op.key()) {
            return Err(ApplyError::Malformed("one key twice"));
        }
    }
    Ok(())
}

/// What one entry adds to the digest of the content.
fn digest_of(version: Version, key: &Key, value: &Value) -> Digest {
    let mut hash = Sha256::new_with_prefix(b"pmd entry\0");
    hash.update(version.0.to_be_bytes());
    hash.update([key.kind().0]);
    hash.update(key.instance().to_be_bytes());
    // With the length in front, where the name ends is not a matter of opinion.
    hash.update(u64::try_from(key.name().len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(key.name());
    hash.update(value.as_bytes());
    Digest::of(hash.finalize().into())
}
