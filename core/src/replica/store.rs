//! Replicas of all origins, this daemon's own included.
//!
//! The store is a map from origin to [`Content`], its join the join of the contents. [`Store::apply`] takes what
//! arrives, in whatever order, as often as it likes; what cannot be used says what would help ([`Need`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_protocol::peer::{Base, Generation, Key, NodeId, Op, Stamp, Update, Value, Version};

use super::content::{ApplyError, Change, Content};
use super::transfer::{Stage, StageError, Transfer};
use crate::facts::{Fact, Facts, Share, Unshared};
use crate::tuning::RegistryTuning;

/// Whom parts of a transfer come from; parts of different sources are not mixed. A link's number, for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(pub u64);

/// Contents by origin.
#[derive(Debug)]
pub struct Store<S = Unshared> {
    me: NodeId,
    own: Arc<Content>,
    others: BTreeMap<NodeId, Arc<Content>>,
    /// The stamp of each content, shared with what is known of peers.
    stamps: Facts<Fact<Stamp>>,
    stages: BTreeMap<(NodeId, Source), Stage>,
    tuning: RegistryTuning,
    share: S,
}

/// What an update did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing that this replica does not have.
    Known,
    /// A part of a transfer; more must follow.
    Staged,
    /// The replica has moved on.
    Applied {
        /// What it had before.
        before: Option<Stamp>,
        /// What it has now.
        now: Stamp,
        /// What that means for each key. A new life counts as a change of those keys only whose values differ.
        changes: Vec<Change>,
    },
    /// It cannot be used with what is here. Ask for this.
    Missing(Need),
    /// It is about this daemon, who alone knows.
    Own(OwnClaim),
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everything that is newer than this replica's content.
    Newer(Option<Stamp>),
    /// A snapshot, because a delta does not fit: see [`ApplyError::Contradiction`].
    Snapshot,
}

/// What others believe about this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnClaim {
    /// Something that was true once.
    Old,
    /// More operations in this life than there were, or others: this process was copied or set back while it ran. A
    /// new life must begin, see [`Store::renew`].
    Ahead,
    /// A later life than this one: another daemon has this identity.
    LaterLife,
}

/// An update's result, and whether it proved that two daemons write under one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What it did.
    pub outcome: Outcome,
    /// Whether this replica's content and the update cannot be from one writer.
    pub fork: bool,
}

impl Applied {
    fn plain(outcome: Outcome) -> Self {
        Self { outcome, fork: false }
    }
}

impl Store {
    /// The store of a daemon at the beginning of a life.
    #[must_use]
    pub fn new(me: NodeId, generation: Generation, tuning: RegistryTuning) -> Self {
        Self::with_own(me, Arc::new(Content::new(generation)), tuning)
    }

    /// The store of a daemon that goes on with this content, and knows no other.
    #[must_use]
    pub fn with_own(me: NodeId, own: Arc<Content>, tuning: RegistryTuning) -> Self {
        Self::sharing(me, own, tuning, Unshared)
    }
}

impl<S: Share> Store<S> {
    /// The same, with facts that are shared with other daemons of this process.
    #[must_use]
    pub fn sharing(me: NodeId, own: Arc<Content>, tuning: RegistryTuning, share: S) -> Self {
        let mut store = Self {
            me,
            own,
            others: BTreeMap::new(),
            stamps: Facts::default(),
            stages: BTreeMap::new(),
            tuning,
            share,
        };
        store.note_stamp(me);
        store
    }

    /// Whose store it is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The content of one origin.
    #[must_use]
    pub fn content(&self, origin: &NodeId) -> Option<&Arc<Content>> {
        if *origin == self.me { Some(&self.own) } else { self.others.get(origin) }
    }

    /// The stamp of one origin.
    #[must_use]
    pub fn stamp(&self, origin: &NodeId) -> Option<Stamp> {
        self.content(origin).map(|content| content.stamp())
    }

    /// A stamp of an origin as it is kept here, if it is that of the content; otherwise a new one.
    #[must_use]
    pub fn shared_stamp(&self, origin: &NodeId, stamp: Stamp) -> Arc<Fact<Stamp>> {
        match self.stamps.get(origin).filter(|current| *current.value() == stamp) {
            Some(current) => Arc::clone(current),
            None => self.share.share(origin, Fact::new(*origin, stamp)),
        }
    }

    /// All origins, this daemon first, the others by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Arc<Content>)> {
        std::iter::once((self.me, &self.own)).chain(self.others.iter().map(|(id, content)| (*id, content)))
    }

    /// Registers something here. `None` if it is registered with this value already.
    pub fn put(&mut self, key: Key, value: Value) -> Option<Change> {
        if self.own.get(&key) == Some(&value) {
            return None;
        }
        let own = Arc::make_mut(&mut self.own);
        let change = own.put(key, value);
        own.trim(self.tuning.tombstones);
        self.note_stamp(self.me);
        change
    }

    /// Ends a registration here. `None` if there is none.
    pub fn delete(&mut self, key: &Key) -> Option<Change> {
        self.own.get(key)?;
        let own = Arc::make_mut(&mut self.own);
        let change = own.delete(key);
        own.trim(self.tuning.tombstones);
        self.note_stamp(self.me);
        change
    }

    /// Begins a new life of this daemon with the same entries.
    pub fn renew(&mut self, generation: Generation) {
        let mut content = Content::new(generation);
        for (key, value) in self.own.iter() {
            content.put(Key::clone(key), value.clone());
        }
        self.own = Arc::new(content);
        self.note_stamp(self.me);
    }

    /// Takes an update from `source`.
    ///
    /// # Errors
    ///
    /// If no honest daemon sends such an update. Nothing has changed then.
    pub fn apply(&mut self, source: Source, update: Update) -> Result<Applied, ApplyError> {
        let origin = update.origin;
        if origin == self.me {
            return Ok(Applied::plain(Outcome::Own(self.own_claim(update.stamp))));
        }
        let have = self.stamp(&origin);
        if let Some(have) = have.filter(|have| update.stamp <= *have) {
            self.stages.remove(&(origin, source));
            return Ok(Applied { outcome: Outcome::Known, fork: have.contradicts(&update.stamp) });
        }
        if let Base::After(from) = update.base
            && let Some(refusal) = unusable(from, update.stamp, have)
        {
            return Ok(refusal);
        }
        let (stamp, base) = (update.stamp, update.base);
        let ops = match self.stage(source, update)? {
            Staged::Complete(ops) => ops,
            Staged::Waiting => return Ok(Applied::plain(Outcome::Staged)),
            Staged::Gap => return Ok(Applied::plain(Outcome::Missing(Need::Newer(have)))),
        };
        match base {
            Base::Nothing => Content::from_snapshot(stamp, ops).map(|content| self.replace(origin, content)),
            Base::After(from) => self.extend(origin, from, stamp, ops),
        }
        .or_else(|error| match error {
            // A snapshot that is not what it says is a sender's fault, a delta may be nobody's.
            ApplyError::Contradiction if base != Base::Nothing => {
                Ok(Applied { outcome: Outcome::Missing(Need::Snapshot), fork: true })
            }
            error => Err(error),
        })
    }

    /// What takes a replica that has `have` to what is here; `None` if that is nothing new.
    #[must_use]
    pub fn transfer(&self, origin: &NodeId, have: Option<Stamp>) -> Option<Transfer> {
        let content = self.content(origin)?;
        let stamp = content.stamp();
        let base = match have {
            Some(have) if have >= stamp => return None,
            // Content that is as far and yet lower has another past.
            Some(have) if have.generation == stamp.generation && have.version == stamp.version => {
                Base::Nothing
            }
            Some(have) if have.generation == stamp.generation && content.reaches_back_to(have.version) => {
                Base::After(have.version)
            }
            // A snapshot is never longer than a delta from the beginning.
            _ => Base::Nothing,
        };
        Some(Transfer::new(*origin, Arc::clone(content), base))
    }

    /// Forgets unfinished transfers of a source that has gone.
    pub fn drop_source(&mut self, source: Source) {
        self.stages.retain(|(_, from), _| *from != source);
    }

    /// Forgets an origin; what it had.
    pub fn drop_origin(&mut self, origin: &NodeId) -> Option<Arc<Content>> {
        self.stages.retain(|(of, _), _| of != origin);
        self.stamps.remove(origin);
        self.others.remove(origin)
    }

    fn own_claim(&self, claim: Stamp) -> OwnClaim {
        let own = self.own.stamp();
        if claim.generation > own.generation {
            OwnClaim::LaterLife
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
        let staged = stage.add(update, self.tuning.staged_bytes).map(|()| stage);
        match staged {
            Ok(stage) if last => Ok(Staged::Complete(stage.into_ops())),
            Ok(stage) => {
                self.stages.insert(at, stage);
                Ok(Staged::Waiting)
            }
            Err(StageError::Gap) => Ok(Staged::Gap),
            Err(StageError::TooLong) => Err(ApplyError::Malformed("a transfer longer than allowed")),
        }
    }

    fn extend(
        &mut self,
        origin: NodeId,
        from: Version,
        to: Stamp,
        ops: Vec<(Version, Op)>,
    ) -> Result<Applied, ApplyError> {
        let before = self.stamp(&origin);
        let Some(content) =
            self.others.get_mut(&origin).filter(|content| content.stamp().generation == to.generation)
        else {
            let mut content = Content::new(to.generation);
            content.extend(from, to, ops)?;
            return Ok(self.replace(origin, content));
        };
        let content = Arc::make_mut(content);
        let changes = content.extend(from, to, ops)?;
        content.trim(self.tuning.tombstones);
        self.note_stamp(origin);
        self.drop_stages_up_to(origin, to);
        Ok(Applied::plain(Outcome::Applied { before, now: to, changes }))
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
        self.note_stamp(origin);
        self.drop_stages_up_to(origin, now);
        Applied { outcome: Outcome::Applied { before, now, changes }, fork }
    }

    fn note_stamp(&mut self, origin: NodeId) {
        if let Some(stamp) = self.stamp(&origin) {
            self.stamps.insert(self.share.share(&origin, Fact::new(origin, stamp)));
        }
    }

    fn drop_stages_up_to(&mut self, origin: NodeId, stamp: Stamp) {
        self.stages.retain(|(of, _), stage| *of != origin || stage.stamp() > stamp);
    }
}

/// What became of one part of a transfer.
enum Staged {
    /// It was the last; these are the operations of all.
    Complete(Vec<(Version, Op)>),
    /// Others must follow.
    Waiting,
    /// It does not continue what came before.
    Gap,
}

/// Why a delta from `from` to `stamp` cannot be used on top of `have`, if it cannot.
fn unusable(from: Version, stamp: Stamp, have: Option<Stamp>) -> Option<Applied> {
    let version = match have {
        Some(have) if have.generation == stamp.generation => have.version,
        _ => Version::ZERO,
    };
    if from > version {
        return Some(Applied::plain(Outcome::Missing(Need::Newer(have))));
    }
    // Newer than what is here, and yet not further: only its digest is greater.
    (version == stamp.version).then_some(Applied { outcome: Outcome::Missing(Need::Snapshot), fork: true })
}
