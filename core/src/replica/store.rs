//! The contents of all origins, including this daemon.
//!
//! The store is a map from origin to [`Content`], and its join is the join of the contents. [`Store::apply`] accepts
//! updates in any order and any number of times. If it cannot use an update, it returns what to request instead
//! ([`Need`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_protocol::peer::{Attestation, Base, Generation, Key, NodeId, Op, Stamp, Update, Value, Version};

use super::content::{ApplyError, Content, KeyChange};
use super::transfer::{Stage, StageError, Transfer};
use crate::attest::{Signed, hash_content};
use crate::facts::{Fact, Facts, Share, Unshared};
use crate::tuning::ReplicaTuning;

/// The sender of a transfer, such as the number of a link. Parts from different sources are not mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(pub u64);

/// Contents by origin.
#[derive(Debug)]
pub struct Store<S = Unshared> {
    me: NodeId,
    own: Arc<Content>,
    others: BTreeMap<NodeId, Arc<Content>>,
    /// The stamp of each content, as pointers that links can share.
    stamps: Facts<Fact<Stamp>>,
    stages: BTreeMap<(NodeId, Source), Stage>,
    tuning: ReplicaTuning,
    share: S,
}

/// The effect of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The update has no effect, because the replica has all of it.
    Known,
    /// The update is part of a transfer, and more parts must follow.
    Staged,
    /// The content has changed.
    Applied {
        /// The previous version.
        before: Option<Stamp>,
        /// The current version.
        now: Stamp,
        /// The keys that have changed. In a new generation, only those whose values differ.
        changes: Vec<KeyChange>,
    },
    /// The update has no effect, because it does not fit the content. Request this instead.
    Missing(Need),
    /// The update has no effect, because only this daemon may change its own content.
    Own(OwnClaim),
}

/// What to request from the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everything that is newer than this version.
    Newer(Option<Stamp>),
    /// A snapshot, because deltas do not fit: see [`ApplyError::Contradiction`].
    Snapshot,
}

/// The version of this daemon's content that others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnClaim {
    /// An earlier version.
    Old,
    /// More operations in this generation than this daemon made, or different ones: the process was copied or restored
    /// while it ran. It must begin a new generation, see [`Store::renew`].
    Ahead,
    /// A later generation: another daemon uses this identity.
    LaterGeneration,
}

/// The effect of an update, and whether it proves that two daemons write under the same identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The effect.
    pub effect: Effect,
    /// Whether the content and the update cannot come from one writer.
    pub fork: bool,
    /// Whether the update does not fit the content although its stamp is genuine. If the origin itself has sent it, that
    /// shows a fork as well; anybody else may have altered the operations.
    pub doubt: bool,
}

impl Applied {
    fn plain(effect: Effect) -> Self {
        Self { effect, fork: false, doubt: false }
    }
}

impl Store {
    /// The store of a daemon at the beginning of a generation.
    #[must_use]
    pub fn new(me: NodeId, generation: Generation, tuning: ReplicaTuning) -> Self {
        Self::with_own(me, Arc::new(Content::new(generation)), tuning)
    }

    /// The store of a daemon that has this content.
    #[must_use]
    pub fn with_own(me: NodeId, own: Arc<Content>, tuning: ReplicaTuning) -> Self {
        Self::sharing(me, own, tuning, Unshared)
    }
}

impl<S: Share> Store<S> {
    /// The store of a daemon that has this content, with facts shared with other daemons in this process.
    #[must_use]
    pub fn sharing(me: NodeId, own: Arc<Content>, tuning: ReplicaTuning, share: S) -> Self {
        let mut store = Self {
            me,
            own,
            others: BTreeMap::new(),
            stamps: Facts::default(),
            stages: BTreeMap::new(),
            tuning,
            share,
        };
        store.update_stamp(me);
        store
    }

    /// The daemon whose store it is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The content of one origin.
    #[must_use]
    pub fn content(&self, origin: &NodeId) -> Option<&Arc<Content>> {
        if *origin == self.me { Some(&self.own) } else { self.others.get(origin) }
    }

    /// The content of this daemon.
    #[must_use]
    pub fn own(&self) -> &Arc<Content> {
        &self.own
    }

    /// What an origin has signed of the version that the store has.
    #[must_use]
    pub fn signed(&self, origin: &NodeId) -> Option<Signed> {
        let content = self.content(origin)?;
        Some(Signed::with_content(hash_content(origin, &content.stamp()), content.attestation()))
    }

    /// The stamp of one origin.
    #[must_use]
    pub fn stamp(&self, origin: &NodeId) -> Option<Stamp> {
        self.content(origin).map(|content| content.stamp())
    }

    /// A stamp of an origin, in the store's allocation if it is the current one.
    #[must_use]
    pub fn shared_stamp(&self, origin: &NodeId, stamp: Stamp) -> Arc<Fact<Stamp>> {
        match self.stamps.get(origin).filter(|current| *current.value() == stamp) {
            Some(current) => Arc::clone(current),
            None => self.share.share(origin, Fact::new(*origin, stamp)),
        }
    }

    /// All origins: this daemon first, then the others by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Arc<Content>)> {
        std::iter::once((self.me, &self.own)).chain(self.others.iter().map(|(id, content)| (*id, content)))
    }

    /// Puts an entry of this daemon. `None` if the entry already has this value.
    pub fn put(&mut self, key: Key, value: Value) -> Option<KeyChange> {
        if self.own.get(&key) == Some(&value) {
            return None;
        }
        let own = Arc::make_mut(&mut self.own);
        let change = own.put(key, value);
        own.trim(self.tuning.tombstones);
        self.update_stamp(self.me);
        change
    }

    /// Deletes an entry of this daemon. `None` if it does not exist.
    pub fn delete(&mut self, key: &Key) -> Option<KeyChange> {
        self.own.get(key)?;
        let own = Arc::make_mut(&mut self.own);
        let change = own.delete(key);
        own.trim(self.tuning.tombstones);
        self.update_stamp(self.me);
        change
    }

    /// Begins a new generation of this daemon with the same entries.
    pub fn renew(&mut self, generation: Generation) {
        let entries = self.own.iter().map(|(key, value)| (Key::clone(key), value.clone()));
        let content = Content::with_entries(generation, entries);
        self.own = Arc::new(content);
        self.update_stamp(self.me);
    }

    /// Sets the origin's signature of the version that the store has.
    pub fn attest(&mut self, origin: &NodeId, attestation: Attestation) {
        let content = if *origin == self.me { Some(&mut self.own) } else { self.others.get_mut(origin) };
        if let Some(content) = content.filter(|content| *content.attestation() != attestation) {
            Arc::make_mut(content).attest(attestation);
        }
    }

    /// Applies an update from `source`. `is_genuine` tells whether the origin has signed the update's stamp; it is only
    /// called for stamps that are news.
    ///
    /// # Errors
    ///
    /// If the update violates the protocol. Nothing has changed then.
    pub fn apply(
        &mut self,
        source: Source,
        update: Update,
        is_genuine: impl FnOnce(&Update) -> bool,
    ) -> Result<Applied, ApplyError> {
        let origin = update.origin;
        if origin == self.me {
            let claim = self.own_claim(update.stamp);
            if claim != OwnClaim::Old && !is_genuine(&update) {
                return Err(ApplyError::Forged);
            }
            return Ok(Applied::plain(Effect::Own(claim)));
        }
        let have = self.stamp(&origin);
        if let Some(have) = have.filter(|have| update.stamp <= *have) {
            self.stages.remove(&(origin, source));
            let fork = have.contradicts(&update.stamp);
            if fork && !is_genuine(&update) {
                return Err(ApplyError::Forged);
            }
            return Ok(Applied { fork, ..Applied::plain(Effect::Known) });
        }
        if let Base::After(from) = update.base
            && let Some(refusal) = unusable(from, update.stamp, have)
        {
            return Ok(refusal);
        }
        // The parts of a transfer have one stamp, which was checked with the first of them.
        let is_staged = self.stages.get(&(origin, source)).is_some_and(|stage| stage.is_of(&update));
        if !is_staged && !is_genuine(&update) {
            return Err(ApplyError::Forged);
        }
        let (stamp, base, attestation) = (update.stamp, update.base, update.attestation.clone());
        let ops = match self.stage(source, update)? {
            Staged::Complete(ops) => ops,
            Staged::Waiting => return Ok(Applied::plain(Effect::Staged)),
            Staged::Gap => return Ok(Applied::plain(Effect::Missing(Need::Newer(have)))),
        };
        let of_base = self.content(&origin).filter(|_| base != Base::Nothing);
        let of_base = of_base.filter(|content| content.stamp().generation == stamp.generation);
        let size = match of_base {
            Some(content) => content.size_after(ops.iter().map(|(_, op)| op)),
            None => Content::new(stamp.generation).size_after(ops.iter().map(|(_, op)| op)),
        };
        if !self.is_within_limits(size) {
            return Err(ApplyError::Malformed("more entries than an origin may have"));
        }
        match base {
            Base::Nothing => Content::from_snapshot(stamp, ops).map(|mut content| {
                content.attest(attestation);
                self.replace(origin, content)
            }),
            Base::After(from) => self.extend(origin, from, (stamp, attestation), ops),
        }
        .or_else(|error| match error {
            // A wrong snapshot is the sender's fault. A delta may fail to fit although its sender is correct: the snapshot
            // will show whether two daemons write under one identity.
            ApplyError::Contradiction if base != Base::Nothing => {
                Ok(Applied { doubt: true, ..Applied::plain(Effect::Missing(Need::Snapshot)) })
            }
            error => Err(error),
        })
    }

    /// The transfer to a replica that has `have`; `None` if it needs none.
    #[must_use]
    pub fn transfer(&self, origin: &NodeId, have: Option<Stamp>) -> Option<Transfer> {
        let content = self.content(origin)?;
        let stamp = content.stamp();
        let base = match have {
            Some(have) if have >= stamp => return None,
            // The same version with a smaller digest has a different history.
            Some(have) if have.generation == stamp.generation && have.version == stamp.version => {
                Base::Nothing
            }
            Some(have) if have.generation == stamp.generation && content.reaches_back_to(have.version) => {
                Base::After(have.version)
            }
            // A delta from the beginning is never shorter than a snapshot.
            _ => Base::Nothing,
        };
        Some(Transfer::new(*origin, Arc::clone(content), base))
    }

    /// Drops unfinished transfers from a source that is gone.
    pub fn drop_source(&mut self, source: Source) {
        self.stages.retain(|(_, from), _| *from != source);
    }

    /// Drops an origin, and returns its content.
    pub fn drop_origin(&mut self, origin: &NodeId) -> Option<Arc<Content>> {
        self.stages.retain(|(of, _), _| of != origin);
        self.stamps.remove(origin);
        self.others.remove(origin)
    }

    fn own_claim(&self, claim: Stamp) -> OwnClaim {
        let own = self.own.stamp();
        if claim.generation > own.generation {
            OwnClaim::LaterGeneration
        } else if claim.generation == own.generation
            && (claim.version > own.version || claim.contradicts(&own))
        {
            OwnClaim::Ahead
        } else {
            OwnClaim::Old
        }
    }

    fn stage(&mut self, source: Source, update: Update) -> Result<Staged, ApplyError> {
        let at = (update.origin, source);
        let last = update.last;
        let stage = self.stages.remove(&at).filter(|stage| stage.is_of(&update));
        if stage.is_none() && update.after == update.base.start() && last {
            return Ok(Staged::Complete(update.ops));
        }
        let mut stage = stage.unwrap_or_else(|| Stage::new(&update));
        let others =
            self.stages.iter().filter(|((_, from), _)| *from == source).map(|(_, stage)| stage.bytes());
        let limit = self.tuning.staged_bytes.saturating_sub(others.sum());
        let staged = stage.add(update, limit).map(|()| stage);
        match staged {
            Ok(stage) if last => Ok(Staged::Complete(stage.into_ops())),
            Ok(stage) => {
                self.stages.insert(at, stage);
                Ok(Staged::Waiting)
            }
            Err(StageError::Gap) => Ok(Staged::Gap),
            Err(StageError::TooLong) => Err(ApplyError::Malformed("transfer too long")),
        }
    }

    fn extend(
        &mut self,
        origin: NodeId,
        from: Version,
        (to, attestation): (Stamp, Attestation),
        ops: Vec<(Version, Op)>,
    ) -> Result<Applied, ApplyError> {
        let before = self.stamp(&origin);
        let Some(content) =
            self.others.get_mut(&origin).filter(|content| content.stamp().generation == to.generation)
        else {
            let mut content = Content::new(to.generation);
            content.extend(from, to, ops)?;
            content.attest(attestation);
            return Ok(self.replace(origin, content));
        };
        let content = Arc::make_mut(content);
        let changes = content.extend(from, to, ops)?;
        content.attest(attestation);
        content.trim(self.tuning.tombstones);
        self.update_stamp(origin);
        self.drop_stages_up_to(origin, to);
        Ok(Applied::plain(Effect::Applied { before, now: to, changes }))
    }

    fn replace(&mut self, origin: NodeId, mut content: Content) -> Applied {
        content.trim(self.tuning.tombstones);
        let now = content.stamp();
        let old = self.others.get(&origin);
        let before = old.map(|old| old.stamp());
        let fork = old.is_some_and(|old| old.contradicts(&content));
        let changes = match old {
            Some(old) => old.changes_to(&content),
            None => Content::new(now.generation).changes_to(&content),
        };
        self.others.insert(origin, self.share.share(&origin, content));
        self.update_stamp(origin);
        self.drop_stages_up_to(origin, now);
        Applied { fork, ..Applied::plain(Effect::Applied { before, now, changes }) }
    }

    /// Whether an origin may have so many entries and bytes.
    fn is_within_limits(&self, (entries, bytes): (usize, usize)) -> bool {
        entries <= self.tuning.entries && bytes <= self.tuning.entry_bytes
    }

    /// Whether there is room for another entry of this daemon.
    #[must_use]
    pub fn has_room_for(&self, key: &Key, value: &Value) -> bool {
        let op = Op::Put(key.clone(), value.clone());
        self.is_within_limits(self.own.size_after(std::iter::once(&op)))
    }

    fn update_stamp(&mut self, origin: NodeId) {
        if let Some(stamp) = self.stamp(&origin) {
            self.stamps.insert(self.share.share(&origin, Fact::new(origin, stamp)));
        }
    }

    fn drop_stages_up_to(&mut self, origin: NodeId, stamp: Stamp) {
        self.stages.retain(|(of, _), stage| *of != origin || stage.stamp() > stamp);
    }
}

/// The result of staging a part of a transfer.
enum Staged {
    /// It was the last part; these are the operations of all parts.
    Complete(Vec<(Version, Op)>),
    /// More parts must follow.
    Waiting,
    /// It does not continue the previous part.
    Gap,
}

/// The effect of a delta from `from` to `stamp` that does not fit `have`; `None` if it fits.
fn unusable(from: Version, stamp: Stamp, have: Option<Stamp>) -> Option<Applied> {
    let version = match have {
        Some(have) if have.generation == stamp.generation => have.version,
        _ => Version::ZERO,
    };
    if from > version {
        return Some(Applied::plain(Effect::Missing(Need::Newer(have))));
    }
    // The stamp is greater but the version is the same, so only its digest is greater.
    (version == stamp.version)
        .then_some(Applied { doubt: true, ..Applied::plain(Effect::Missing(Need::Snapshot)) })
}
