//! The digest of a content: the root of a hash tree over its entries.
//!
//! Entries are in the order of their versions, in blocks of [`BLOCK`] versions. The root is the hash over the hashes of all
//! blocks, so a change costs the hashes of the blocks it touches and that one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::{Digest, Key, Op, Value, Version};
use sha2::{Digest as _, Sha256};

use super::Content;

/// Entries that share a block have the same version divided by this.
const BLOCK: u64 = 64;
/// Contents with more entries than this keep the hashes of their blocks. Smaller ones compute them when they change.
const KEEP_BLOCKS: usize = 64;

/// The SHA-256 of a block of entries.
pub(super) type BlockHash = [u8; 32];

impl Content {
    pub(super) fn version_of(&self, key: &Key) -> Option<Version> {
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
    pub(super) fn digest_after<'a>(
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
    pub(super) fn update_digest(&mut self, versions: impl IntoIterator<Item = Version>) {
        if self.blocks.is_empty() || self.entries.len() <= KEEP_BLOCKS {
            return self.rebuild();
        }
        let touched: BTreeSet<u64> = versions.into_iter().map(block_of).collect();
        let changed = touched.into_iter().map(|block| (block, self.hash_block(block, &BTreeSet::new(), &[])));
        self.keep_blocks(changed.collect());
        self.stamp.digest = digest_of(self.blocks.iter().map(|(number, hash)| (*number, hash)));
    }

    /// Computes the digest from all entries.
    pub(super) fn rebuild(&mut self) {
        self.blocks.clear();
        let blocks = self.kept_blocks().into_owned();
        self.stamp.digest = digest_of(blocks.iter().map(|(number, hash)| (*number, hash)));
        if self.entries.len() > KEEP_BLOCKS {
            self.blocks = blocks;
        }
    }

    /// Keeps the hashes of blocks that have changed, if the hashes of all others are kept too.
    pub(super) fn keep_blocks(&mut self, changed: BTreeMap<u64, Option<BlockHash>>) {
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
