//! The entries of one origin, at one version of one of its generations.
//!
//! Only the origin itself puts and deletes entries. Each operation gets the next version, which no other operation ever
//! has, so the content *is a function of generation and version*. A replica only needs the latest operation on each
//! key, because earlier values are never read. This is a delta-state CRDT (P. S. Almeida, A. Shoker, C. Baquero, "Delta
//! State Replicated Data Types", 2018) of the simplest kind: with one writer, the join is a maximum.
//!
//! ```text
//!   puts         version ─▶ key   one for each entry          ┐ together the latest operation on each key;
//!   tombstones   version ─▶ key   one for each deletion       ┘ a delta has those above a version
//!   floor        tombstones at or below it were dropped: older versions need a snapshot instead of a delta
//! ```
//!
//! Two daemons that write under one identity (a cloned image, a virtual machine restored from a snapshot) produce
//! different content under one version. The digest of the content reveals that: *before* applying a delta, a replica
//! computes the digest that its content would have, and rejects the delta if the sender's digest differs.
//!
//! The origin signs the digest, so it has to be collision resistant: it is the root of a hash tree over the entries in
//! the order of their versions, in blocks of 64 versions. A change costs the hashes of the blocks it touches and
//! one hash over the hashes of all blocks.
//!
//! This file has more than 500 lines, because the digest is computed from the private maps of the content: in a file of its
//! own it would depend on this one and this one on it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use pmd_protocol::peer::{Attestation, Digest, Generation, Key, Op, Stamp, Value, Version};
use sha2::{Digest as _, Sha256};

/// What an entry takes in memory besides its name and its value, with the maps that lead to it. Without it, a flood of tiny
/// entries would take many times the limit.
const ENTRY_COST: usize = 128;
/// Entries that share a block have the same version divided by this.
const BLOCK: u64 = 64;
/// Contents with more entries than this keep the hashes of their blocks. Smaller ones compute them when they change.
const KEEP_BLOCKS: usize = 64;

/// The SHA-256 of a block of entries.
type BlockHash = [u8; 32];

/// The entries of one origin, see the module documentation.
#[derive(Clone, Debug)]
pub struct Content {
    stamp: Stamp,
    /// The origin's signature of the stamp.
    attestation: Attestation,
    entries: BTreeMap<Arc<Key>, Slot>,
    puts: BTreeMap<Version, Arc<Key>>,
    tombstones: BTreeMap<Version, Arc<Key>>,
    deleted: BTreeMap<Arc<Key>, Version>,
    floor: Version,
    /// What all entries count, see [`size_of`].
    bytes: usize,
    /// The hash of each block that has entries, by block number; empty if there are few entries.
    blocks: BTreeMap<u64, BlockHash>,
}

/// Contents are equal if all their fields are equal, including tombstones. The other two maps are derived from these.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.stamp == other.stamp
            && self.floor == other.floor
            && self.tombstones == other.tombstones
            && self.entries == other.entries
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    version: Version,
    value: Value,
}

/// How an operation or a transfer changed one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: Arc<Key>,
    /// Its value before, if any.
    pub before: Option<Value>,
    /// Its value now, if any.
    pub after: Option<Value>,
}

/// Why operations were not applied. The content is unchanged then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The operations violate the protocol; close the link.
    #[error("{0}")]
    Malformed(&'static str),
    /// The origin has not signed this. No correct daemon passes it on.
    #[error("a statement that its origin has not signed")]
    Forged,
    /// The operations do not lead to the sender's content, because the histories differ. Request a snapshot.
    #[error("the operations do not lead to the sender's content")]
    Contradiction,
}

impl Content {
    /// The content at the beginning of a generation, which is empty.
    #[must_use]
    pub fn new(generation: Generation) -> Self {
        Self {
            stamp: Stamp::start(generation),
            attestation: Attestation::default(),
            entries: BTreeMap::new(),
            puts: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            deleted: BTreeMap::new(),
            floor: Version::ZERO,
            bytes: 0,
            blocks: BTreeMap::new(),
        }
    }

    /// The content of a generation that begins with these entries.
    #[must_use]
    pub fn with_entries(generation: Generation, entries: impl IntoIterator<Item = (Key, Value)>) -> Self {
        let mut content = Self::new(generation);
        for (key, value) in entries {
            let version = content.stamp.version.next();
            content.stamp.version = version;
            content.set(version, Arc::new(key), value);
        }
        content.rebuild();
        content
    }

    /// The version of the content. Contents with equal stamps have equal entries.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The origin's signature of this version. This daemon's own content is signed before it is sent, and not with
    /// every change.
    #[must_use]
    pub fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    /// Sets the signature of this version.
    pub fn attest(&mut self, attestation: Attestation) {
        self.attestation = attestation;
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

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of entries, and the bytes of their names and values.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// The size that the content would have after these operations.
    #[must_use]
    pub fn size_after<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> (usize, usize) {
        let (mut entries, mut bytes) = self.size();
        for op in ops {
            if let Some(old) = self.get(op.key()) {
                entries = entries.saturating_sub(1);
                bytes = bytes.saturating_sub(size_of(op.key(), old));
            }
            if let Op::Put(key, value) = op {
                entries += 1;
                bytes += size_of(key, value);
            }
        }
        (entries, bytes)
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// The lowest version from which a delta is possible.
    #[must_use]
    pub fn floor(&self) -> Version {
        self.floor
    }

    /// Sets `key` to `value`, as the origin. `None` if it already has that value.
    pub fn put(&mut self, key: Key, value: Value) -> Option<KeyChange> {
        if self.get(&key) == Some(&value) {
            return None;
        }
        let version = self.stamp.version.next();
        let replaced = self.version_of(&key);
        self.stamp.version = version;
        let change = self.set(version, Arc::new(key), value);
        self.update_digest(replaced.into_iter().chain([version]));
        Some(change)
    }

    /// Deletes `key`, as the origin. `None` if it does not exist.
    pub fn delete(&mut self, key: &Key) -> Option<KeyChange> {
        let (key, _) = self.entries.get_key_value(key)?;
        let key = Arc::clone(key);
        let replaced = self.version_of(&key);
        self.stamp.version = self.stamp.version.next();
        let change = self.unset(self.stamp.version, key);
        self.update_digest(replaced);
        Some(change)
    }

    /// Drops the oldest tombstones until at most `window` are left.
    pub fn trim(&mut self, window: usize) {
        while self.tombstones.len() > window {
            let Some((version, key)) = self.tombstones.pop_first() else { return };
            self.deleted.remove(&key);
            self.floor = version;
        }
    }

    /// Whether a delta from `from` is possible; if not, a snapshot is needed.
    #[must_use]
    pub fn reaches_back_to(&self, from: Version) -> bool {
        (self.floor..=self.stamp.version).contains(&from)
    }

    /// The latest operation on each key changed after `from`, by version. Only complete if
    /// [`reaches_back_to`](Self::reaches_back_to) returns true.
    pub fn ops_after(&self, from: Version) -> impl Iterator<Item = (Version, Op)> {
        let first = from.next();
        Merged {
            puts: self.puts.range(first..).peekable(),
            tombstones: self.tombstones.range(first..).peekable(),
        }
        .filter_map(|(version, key)| Some((version, self.op(key)?)))
    }

    /// The entries that were put after `from`, as operations, by version.
    pub fn entries_after(&self, from: Version) -> impl Iterator<Item = (Version, Op)> {
        self.puts.range(from.next()..).filter_map(|(version, key)| Some((*version, self.op(key)?)))
    }

    /// Applies a delta that starts at or below the version of this content and leads to `to` in the same generation.
    ///
    /// # Errors
    ///
    /// If it does not lead to `to`. The content is unchanged then.
    pub fn extend(
        &mut self,
        from: Version,
        to: Stamp,
        ops: Vec<(Version, Op)>,
    ) -> Result<Vec<KeyChange>, ApplyError> {
        let have = self.stamp;
        if to.generation != have.generation || from > have.version || to.version <= have.version {
            return Err(ApplyError::Malformed("delta for a different base"));
        }
        check_order(from, to.version, &ops)?;
        if ops.last().is_none_or(|(version, _)| *version != to.version) {
            return Err(ApplyError::Malformed("delta without its last operation"));
        }
        let new_ops = ops.iter().filter(|(version, _)| *version > have.version);
        let mut blocks = BTreeMap::new();
        if self.digest_after(new_ops, &mut blocks) != to.digest {
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
        self.stamp.digest = to.digest;
        self.keep_blocks(blocks);
        Ok(changes)
    }

    /// The content that a snapshot describes.
    ///
    /// # Errors
    ///
    /// If the digest of the content differs from that of `stamp`.
    pub fn from_snapshot(stamp: Stamp, ops: Vec<(Version, Op)>) -> Result<Self, ApplyError> {
        check_order(Version::ZERO, stamp.version, &ops)?;
        let mut content = Self::new(stamp.generation);
        for (version, op) in ops {
            match op {
                Op::Put(key, value) => content.set(version, Arc::new(key), value),
                Op::Delete(_) => return Err(ApplyError::Malformed("snapshot with a deletion")),
            };
        }
        content.rebuild();
        if content.stamp.digest != stamp.digest {
            return Err(ApplyError::Contradiction);
        }
        content.stamp.version = stamp.version;
        // A snapshot has no tombstones.
        content.floor = stamp.version;
        Ok(content)
    }

    /// The join of two replicas' contents of one origin: the one with the greater stamp.
    ///
    /// This is the specification. Deltas and snapshots reach the same result with fewer bytes.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if other.stamp > self.stamp { other } else { self }
    }

    /// The changes that a reader sees when `newer` replaces `self`.
    #[must_use]
    pub fn changes_to(&self, newer: &Self) -> Vec<KeyChange> {
        let gone =
            self.entries.iter().filter(|(key, _)| !newer.entries.contains_key(*key)).map(|(key, slot)| {
                KeyChange { key: Arc::clone(key), before: Some(slot.value.clone()), after: None }
            });
        let new = newer.entries.iter().filter_map(|(key, slot)| {
            let before = self.get(key);
            (before != Some(&slot.value)).then(|| KeyChange {
                key: Arc::clone(key),
                before: before.cloned(),
                after: Some(slot.value.clone()),
            })
        });
        gone.chain(new).collect()
    }

    /// Whether the two cannot come from one writer, because they differ in the same version of the same generation.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.stamp.generation != other.stamp.generation {
            return false;
        }
        let differs = |(version, key): (&Version, &Arc<Key>)| {
            let others = other.puts.get(version);
            other.tombstones.contains_key(version)
                || others.is_some_and(|others| others != key || self.get(key) != other.get(others))
        };
        self.stamp.contradicts(&other.stamp)
            || self.puts.iter().any(differs)
            || self.tombstones.iter().any(|(version, key)| {
                other.puts.contains_key(version)
                    || other.tombstones.get(version).is_some_and(|others| others != key)
            })
    }

    fn version_of(&self, key: &Key) -> Option<Version> {
        self.entries.get(key).map(|slot| slot.version)
    }

    /// The hash of a block after these operations, or `None` if it has no entries then.
    fn hash_block(
        &self,
        block: u64,
        replaced: &BTreeSet<Version>,
        added: &[(Version, &Key, &Value)],
    ) -> Option<BlockHash> {
        let (first, last) =
            (block.saturating_mul(BLOCK), block.saturating_mul(BLOCK).saturating_add(BLOCK - 1));
        let versions = Version(first)..=Version(last);
        let mut hash = Sha256::new_with_prefix(b"pmd block\0");
        let mut is_empty = true;
        for (version, key) in self.puts.range(versions.clone()) {
            if let Some(slot) = self.entries.get(key).filter(|_| !replaced.contains(version)) {
                add_entry(&mut hash, *version, key, &slot.value);
                is_empty = false;
            }
        }
        for (version, key, value) in added.iter().filter(|(version, ..)| versions.contains(version)) {
            add_entry(&mut hash, *version, key, value);
            is_empty = false;
        }
        (!is_empty).then(|| hash.finalize().into())
    }

    /// The digest that this content would have after these new operations. `changed` gets the hashes of the blocks that
    /// differ.
    fn digest_after<'a>(
        &self,
        ops: impl Iterator<Item = &'a (Version, Op)>,
        changed: &mut BTreeMap<u64, Option<BlockHash>>,
    ) -> Digest {
        let (mut replaced, mut added) = (BTreeSet::new(), Vec::new());
        for (version, op) in ops {
            replaced.extend(self.version_of(op.key()));
            if let Op::Put(key, value) = op {
                added.push((*version, key, value));
            }
        }
        let touched = replaced.iter().chain(added.iter().map(|(version, ..)| version));
        let touched: BTreeSet<u64> = touched.copied().map(block_of).collect();
        changed.extend(touched.iter().map(|block| (*block, self.hash_block(*block, &replaced, &added))));
        let kept = self.kept_blocks();
        let mut all: BTreeMap<u64, &BlockHash> = kept.iter().map(|(number, hash)| (*number, hash)).collect();
        for (number, hash) in changed.iter() {
            match hash {
                Some(hash) => all.insert(*number, hash),
                None => all.remove(number),
            };
        }
        digest_of(all.into_iter())
    }

    /// The hashes of all blocks.
    fn kept_blocks(&self) -> Cow<'_, BTreeMap<u64, BlockHash>> {
        if !self.blocks.is_empty() {
            return Cow::Borrowed(&self.blocks);
        }
        let numbers: BTreeSet<u64> = self.puts.keys().copied().map(block_of).collect();
        let hash = |number| Some((number, self.hash_block(number, &BTreeSet::new(), &[])?));
        Cow::Owned(numbers.into_iter().filter_map(hash).collect())
    }

    /// Updates the digest after the entries with these versions have changed.
    fn update_digest(&mut self, versions: impl IntoIterator<Item = Version>) {
        if self.blocks.is_empty() || self.entries.len() <= KEEP_BLOCKS {
            return self.rebuild();
        }
        let touched: BTreeSet<u64> = versions.into_iter().map(block_of).collect();
        let changed = touched.into_iter().map(|block| (block, self.hash_block(block, &BTreeSet::new(), &[])));
        self.keep_blocks(changed.collect());
        self.stamp.digest = digest_of(self.blocks.iter().map(|(number, hash)| (*number, hash)));
    }

    /// Computes the digest from all entries.
    fn rebuild(&mut self) {
        self.blocks.clear();
        let blocks = self.kept_blocks().into_owned();
        self.stamp.digest = digest_of(blocks.iter().map(|(number, hash)| (*number, hash)));
        if self.entries.len() > KEEP_BLOCKS {
            self.blocks = blocks;
        }
    }

    /// Keeps the hashes of blocks that have changed, if the hashes of all others are kept too.
    fn keep_blocks(&mut self, changed: BTreeMap<u64, Option<BlockHash>>) {
        if self.entries.len() <= KEEP_BLOCKS {
            self.blocks.clear();
        } else if self.blocks.is_empty() {
            self.blocks = self.kept_blocks().into_owned();
        } else {
            for (number, hash) in changed {
                match hash {
                    Some(hash) => self.blocks.insert(number, hash),
                    None => self.blocks.remove(&number),
                };
            }
        }
    }

    fn op(&self, key: &Arc<Key>) -> Option<Op> {
        match self.entries.get(key) {
            Some(slot) => Some(Op::Put(Key::clone(key), slot.value.clone())),
            None if self.deleted.contains_key(key) => Some(Op::Delete(Key::clone(key))),
            None => None,
        }
    }

    fn set(&mut self, version: Version, key: Arc<Key>, value: Value) -> KeyChange {
        let before = self.forget(&key);
        self.bytes += size_of(&key, &value);
        self.entries.insert(Arc::clone(&key), Slot { version, value: value.clone() });
        self.puts.insert(version, Arc::clone(&key));
        KeyChange { key, before, after: Some(value) }
    }

    fn unset(&mut self, version: Version, key: Arc<Key>) -> KeyChange {
        let before = self.forget(&key);
        self.tombstones.insert(version, Arc::clone(&key));
        self.deleted.insert(Arc::clone(&key), version);
        KeyChange { key, before, after: None }
    }

    /// Removes the latest operation on `key`, and returns the value if it was a put.
    fn forget(&mut self, key: &Arc<Key>) -> Option<Value> {
        if let Some(version) = self.deleted.remove(key) {
            self.tombstones.remove(&version);
        }
        let slot = self.entries.remove(key)?;
        self.puts.remove(&slot.version);
        self.bytes -= size_of(key, &slot.value);
        Some(slot.value)
    }
}

/// Merges two maps with disjoint keys in order.
struct Merged<I: Iterator> {
    puts: Peekable<I>,
    tombstones: Peekable<I>,
}

impl<'a, I: Iterator<Item = (&'a Version, &'a Arc<Key>)>> Iterator for Merged<I> {
    type Item = (Version, &'a Arc<Key>);

    fn next(&mut self) -> Option<Self::Item> {
        let from_puts = match (self.puts.peek(), self.tombstones.peek()) {
            (Some((put, _)), Some((tombstone, _))) => put < tombstone,
            (put, _) => put.is_some(),
        };
        let next = if from_puts { self.puts.next() } else { self.tombstones.next() };
        next.map(|(version, key)| (*version, key))
    }
}

/// Checks that versions increase and lie in `(from, to]`, and that no key appears twice.
fn check_order(from: Version, to: Version, ops: &[(Version, Op)]) -> Result<(), ApplyError> {
    let mut last = from;
    let mut keys = BTreeSet::new();
    for (version, op) in ops {
        if *version <= last || *version > to {
            return Err(ApplyError::Malformed("versions out of order"));
        }
        last = *version;
        if !keys.insert(op.key()) {
            return Err(ApplyError::Malformed("duplicate key"));
        }
    }
    Ok(())
}

/// The bytes of an entry that count towards the limit of its origin: about what it takes in memory.
fn size_of(key: &Key, value: &Value) -> usize {
    ENTRY_COST + key.name().len() + value.as_bytes().len()
}

/// The bytes of an operation that count towards the limit of unfinished transfers. They are those of the entry, so that
/// what an origin may have can be transferred.
pub(super) fn cost_of(op: &Op) -> usize {
    match op {
        Op::Put(key, value) => size_of(key, value),
        Op::Delete(key) => ENTRY_COST + key.name().len(),
    }
}

/// The number of the block that an entry with this version belongs to.
fn block_of(version: Version) -> u64 {
    version.0 / BLOCK
}

/// Adds one entry to the hash of its block.
fn add_entry(hash: &mut Sha256, version: Version, key: &Key, value: &Value) {
    // The lengths in front make the end of the name and of the value unambiguous.
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
    hash.update(version.0.to_be_bytes());
    hash.update([key.kind().0]);
    hash.update(key.instance().to_be_bytes());
    hash.update(length(key.name()));
    hash.update(key.name());
    hash.update(length(value.as_bytes()));
    hash.update(value.as_bytes());
}

/// The digest of a content whose blocks have these hashes, in order.
fn digest_of<'a>(blocks: impl Iterator<Item = (u64, &'a BlockHash)>) -> Digest {
    let mut hash = Sha256::new_with_prefix(b"pmd content\0");
    let mut is_empty = true;
    for (number, block) in blocks {
        hash.update(number.to_be_bytes());
        hash.update(block);
        is_empty = false;
    }
    if is_empty { Digest::EMPTY } else { Digest::of(hash.finalize().into()) }
}
