//! One registry over all hosts: a delta-state CRDT with one writer for each origin.
//!
//! ```text
//!   updates ─▶ store ── content of (origin, life, version) ─┐
//!                                                           ├─ equal lives? ─▶ directory ─▶ patches, look-ups
//!   membership ──────── who lives, in which life ───────────┘
//! ```
//!
//! Replication and membership do not wait for each other. An entry is visible while its origin is a live member *in
//! the life that wrote the entry*; so old content is harmless wherever it comes from, and nothing dead comes back.
//! [`Registry`] joins the two; the parts are in [`content`], [`transfer`], [`store`] and [`view`].

pub mod content;
pub mod store;
pub mod transfer;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_protocol::peer::frame::Summary;
use pmd_protocol::peer::{Digest, Generation, Key, NodeId, Stamp, Update, Value};

use crate::facts::{About, Fact, Facts, Share, Unshared};
use crate::id::fingerprint_of;
use crate::tuning::RegistryTuning;
use content::{ApplyError, Content};
use store::{Applied, Outcome, Source, Store};
use transfer::Transfer;
use view::{Directory, Patch, Rank};

/// The registry of one daemon. See the module.
#[derive(Debug)]
pub struct Registry<S = Unshared> {
    store: Store<S>,
    directory: Directory<S>,
    members: Facts<Fact<Member>>,
    fingerprint: Digest,
    /// Origins whose content is here and not visible, and since when.
    dead: BTreeMap<NodeId, u64>,
    tuning: RegistryTuning,
    share: S,
}

/// A live origin, what is here of it, and what it adds to the fingerprint.
pub type LiveOrigin = (NodeId, Stamp, Digest);

/// What is known of a live member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    generation: Generation,
    rank: Rank,
    /// What it adds to the fingerprint.
    digest: Digest,
}

impl Registry {
    /// The registry of a daemon at the beginning of a life.
    #[must_use]
    pub fn new(me: NodeId, generation: Generation, tuning: RegistryTuning) -> Self {
        Self::sharing(me, generation, tuning, Unshared)
    }
}

impl<S: Share> Registry<S> {
    /// The same, with facts that are shared with other daemons of this process.
    #[must_use]
    pub fn sharing(me: NodeId, generation: Generation, tuning: RegistryTuning, share: S) -> Self {
        let own = Arc::new(Content::new(generation));
        let mut registry = Self {
            store: Store::sharing(me, own, tuning, share.clone()),
            directory: Directory::new(me, share.clone()),
            members: Facts::default(),
            fingerprint: Digest::EMPTY,
            dead: BTreeMap::new(),
            tuning,
            share,
        };
        // Nothing is registered yet, so nobody has to be told.
        let _ = registry.member_up(me, generation, Rank::default(), 0);
        registry
    }

    /// The replicas.
    #[must_use]
    pub fn store(&self) -> &Store<S> {
        &self.store
    }

    /// What can be looked up.
    #[must_use]
    pub fn directory(&self) -> &Directory<S> {
        &self.directory
    }

    /// The sum over all live members of what [`fingerprint_of`] says of them. A member of whom nothing is known yet
    /// counts with the beginning of its life.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// What heartbeats say of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let [a, b, c, d, e, f, g, h, ..] = *self.fingerprint.as_bytes();
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        Summary { fingerprint: [a, b, c, d, e, f, g, h], members }
    }

    /// Whether a member lives of whose current life nothing is here.
    #[must_use]
    pub fn lacks(&self, id: &NodeId) -> bool {
        self.member(id).is_some_and(|member| {
            self.store.stamp(id).is_none_or(|stamp| stamp.generation != member.generation)
        })
    }

    /// The live members with what is here of the life they are in, by id.
    pub fn live(&self) -> impl Iterator<Item = (NodeId, Stamp)> {
        self.members
            .iter()
            .map(|member| (*member.about(), self.live_stamp(member.about(), member.value().generation)))
    }

    /// The live members with what each adds to the fingerprint, by id.
    #[must_use]
    pub fn live_origins(&self) -> Vec<LiveOrigin> {
        let origin = |fact: &Arc<Fact<Member>>| {
            let (id, member) = (fact.about(), fact.value());
            (*id, self.live_stamp(id, member.generation), member.digest)
        };
        self.members.iter().map(origin).collect()
    }

    /// Whether a member lives.
    #[must_use]
    pub fn is_live(&self, id: &NodeId) -> bool {
        self.member(id).is_some()
    }

    /// Says how good a live member's answers to look-ups are.
    pub fn rank(&mut self, id: &NodeId, rank: Rank) {
        if let Some(member) = self.member(id) {
            self.set_member(*id, Member { rank, ..member });
            self.directory.rank(id, rank);
        }
    }

    /// Registers something here. `None` if it is registered with this value already.
    pub fn put(&mut self, key: Key, value: Value) -> Option<Patch> {
        let change = self.store.put(key, value)?;
        self.count(self.store.me());
        self.directory.change(self.store.me(), &[change])
    }

    /// Ends a registration here. `None` if there is none.
    pub fn delete(&mut self, key: &Key) -> Option<Patch> {
        let change = self.store.delete(key)?;
        self.count(self.store.me());
        self.directory.change(self.store.me(), &[change])
    }

    /// Begins a new life of this daemon with the same entries.
    pub fn renew(&mut self, generation: Generation) {
        let me = self.store.me();
        self.store.renew(generation);
        if let Some(member) = self.member(&me) {
            self.set_member(me, Member { generation, ..member });
        }
        self.count(me);
    }

    /// Takes an update from `source`. `now_ms` is monotonic.
    ///
    /// # Errors
    ///
    /// If no honest daemon sends such an update. Nothing has changed then.
    pub fn apply(
        &mut self,
        source: Source,
        update: Update,
        now_ms: u64,
    ) -> Result<(Applied, Option<Patch>), ApplyError> {
        let origin = update.origin;
        let applied = self.store.apply(source, update)?;
        let Outcome::Applied { now, changes, .. } = &applied.outcome else { return Ok((applied, None)) };
        let lives = self.member(&origin).is_some_and(|member| member.generation == now.generation);
        let patch = if lives && self.directory.is_visible(&origin) {
            self.count(origin);
            self.directory.change(origin, changes)
        } else {
            self.refresh(origin, now_ms)
        };
        Ok((applied, patch))
    }

    /// What takes a replica that has `have` to what is here; `None` if that is nothing new.
    #[must_use]
    pub fn transfer(&self, origin: &NodeId, have: Option<Stamp>) -> Option<Transfer> {
        self.store.transfer(origin, have)
    }

    /// Forgets unfinished transfers of a source that has gone.
    pub fn drop_source(&mut self, source: Source) {
        self.store.drop_source(source);
    }

    /// A member lives, in this life; or is known better now. `now_ms` is monotonic.
    pub fn member_up(
        &mut self,
        id: NodeId,
        generation: Generation,
        rank: Rank,
        now_ms: u64,
    ) -> Option<Patch> {
        let digest = self.member(&id).map_or(Digest::EMPTY, |member| member.digest);
        self.set_member(id, Member { generation, rank, digest });
        self.directory.rank(&id, rank);
        self.refresh(id, now_ms)
    }

    /// A member does not live any more. `now_ms` is monotonic.
    pub fn member_down(&mut self, id: NodeId, now_ms: u64) -> Option<Patch> {
        if id == self.store.me() {
            return None;
        }
        if let Some(member) = self.members.remove(&id) {
            self.fingerprint = self.fingerprint.minus(member.value().digest);
        }
        self.refresh(id, now_ms)
    }

    /// Drops content that has been invisible for long enough; how many origins' it was.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        if self.next_expiry().is_none_or(|due| due > now_ms) {
            return 0;
        }
        let mut over = self.dead.len().saturating_sub(self.tuning.max_dead);
        let mut by_age: Vec<_> = self.dead.iter().map(|(id, since)| (*since, *id)).collect();
        by_age.sort_unstable();
        by_age.retain(|(since, _)| {
            let crowded = over > 0;
            over = over.saturating_sub(1);
            crowded || now_ms.saturating_sub(*since) >= self.tuning.keep_dead_ms
        });
        for (_, id) in &by_age {
            self.dead.remove(id);
            self.store.drop_origin(id);
        }
        by_age.len()
    }

    /// When [`expire`](Self::expire) will have something to do; monotonic milliseconds.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        let oldest = self.dead.values().min()?;
        Some(if self.dead.len() > self.tuning.max_dead {
            *oldest
        } else {
            oldest.saturating_add(self.tuning.keep_dead_ms)
        })
    }

    /// Shows or hides an origin, whichever is due.
    fn refresh(&mut self, origin: NodeId, now_ms: u64) -> Option<Patch> {
        self.count(origin);
        let content = self.store.content(&origin);
        let member = self.member(&origin);
        if let (Some(content), Some(member)) = (content, member)
            && content.stamp().generation == member.generation
        {
            self.dead.remove(&origin);
            return self.directory.show(origin, member.rank, content);
        }
        if content.is_some() {
            self.dead.entry(origin).or_insert(now_ms);
        }
        self.directory.hide(origin)
    }

    /// Brings the fingerprint up to date with one origin.
    fn count(&mut self, origin: NodeId) {
        let Some(generation) = self.member(&origin).map(|member| member.generation) else { return };
        let digest = fingerprint_of(&origin, &self.live_stamp(&origin, generation));
        if let Some(member) = self.member(&origin) {
            self.fingerprint = self.fingerprint.minus(member.digest).plus(digest);
            self.set_member(origin, Member { digest, ..member });
        }
    }

    fn member(&self, id: &NodeId) -> Option<Member> {
        self.members.get(id).map(|member| *member.value())
    }

    fn set_member(&mut self, id: NodeId, member: Member) {
        self.members.insert(self.share.share(&id, Fact::new(id, member)));
    }

    fn live_stamp(&self, origin: &NodeId, generation: Generation) -> Stamp {
        self.store
            .stamp(origin)
            .filter(|stamp| stamp.generation == generation)
            .unwrap_or_else(|| Stamp::start(generation))
    }
}
