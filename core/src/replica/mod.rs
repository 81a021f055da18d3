//! This daemon's replica of the registry of all hosts: a delta-state CRDT with one writer for each origin.
//!
//! ```text
//!   updates ─▶ store ── content of (origin, generation, version) ─┐
//!                                                                 ├─ same generation? ─▶ view ─▶ patches, lookups
//!   membership ──────── live members and their generations ───────┘
//! ```
//!
//! Replication and membership do not wait for each other. An entry is visible while its origin is a live member *in the
//! generation that wrote the entry*. Outdated content is therefore harmless whatever its source, and entries of dead
//! daemons do not reappear. [`Replica`] combines the two; its parts are [`content`], [`transfer`], [`store`] and
//! [`view`].

pub mod content;
pub mod store;
pub mod transfer;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_protocol::peer::frame::Summary;
use pmd_protocol::peer::{Attestation, Digest, Generation, Key, NodeId, Stamp, Update, Value};

use crate::facts::{About, Fact, Facts, Share, Unshared};
use crate::id::fingerprint_of;
use crate::tuning::ReplicaTuning;
use content::{ApplyError, Content};
use store::{Applied, Effect, Source, Store};
use transfer::Transfer;
use view::{Patch, Rank, View};

/// A replica of the registry, see the module documentation.
#[derive(Debug)]
pub struct Replica<S = Unshared> {
    store: Store<S>,
    view: View<S>,
    members: Facts<Fact<Member>>,
    fingerprint: Digest,
    /// Origins whose content is kept but not visible, with the time at which it was hidden.
    dead: BTreeMap<NodeId, u64>,
    tuning: ReplicaTuning,
    share: S,
}

/// A live origin, the version that the replica has of it, and its contribution to the fingerprint.
pub type LiveOrigin = (NodeId, Stamp, Digest);

/// The state of a live member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    generation: Generation,
    rank: Rank,
    /// Its contribution to the fingerprint.
    digest: Digest,
}

impl Replica {
    /// The replica of a daemon at the beginning of a generation.
    #[must_use]
    pub fn new(me: NodeId, generation: Generation, tuning: ReplicaTuning) -> Self {
        Self::sharing(me, generation, tuning, Unshared)
    }
}

impl<S: Share> Replica<S> {
    /// Like [`new`](Replica::new), with facts shared with other daemons in this process.
    #[must_use]
    pub fn sharing(me: NodeId, generation: Generation, tuning: ReplicaTuning, share: S) -> Self {
        let own = Arc::new(Content::new(generation));
        let mut replica = Self {
            store: Store::sharing(me, own, tuning, share.clone()),
            view: View::new(me, share.clone()),
            members: Facts::default(),
            fingerprint: Digest::EMPTY,
            dead: BTreeMap::new(),
            tuning,
            share,
        };
        // Nothing is registered yet, so the patch is empty.
        let _ = replica.member_up(me, generation, Rank::default(), 0);
        replica
    }

    /// The contents of all origins.
    #[must_use]
    pub fn store(&self) -> &Store<S> {
        &self.store
    }

    /// The entries that lookups see.
    #[must_use]
    pub fn view(&self) -> &View<S> {
        &self.view
    }

    /// The sum of [`fingerprint_of`] over all live members. A member without content counts with the stamp at the
    /// beginning of its generation.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The summary that heartbeats carry.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let [a, b, c, d, e, f, g, h, ..] = *self.fingerprint.as_bytes();
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        Summary { fingerprint: [a, b, c, d, e, f, g, h], members }
    }

    /// Whether a member is live but has no content of its current generation.
    #[must_use]
    pub fn lacks(&self, id: &NodeId) -> bool {
        self.member(id).is_some_and(|member| {
            self.store.stamp(id).is_none_or(|stamp| stamp.generation != member.generation)
        })
    }

    /// The live members, and the version of each in its current generation, by id.
    pub fn live(&self) -> impl Iterator<Item = (NodeId, Stamp)> {
        self.members
            .iter()
            .map(|member| (*member.about(), self.live_stamp(member.about(), member.value().generation)))
    }

    /// The live members with their contributions to the fingerprint, by id.
    #[must_use]
    pub fn live_origins(&self) -> Vec<LiveOrigin> {
        let origin = |fact: &Arc<Fact<Member>>| {
            let (id, member) = (fact.about(), fact.value());
            (*id, self.live_stamp(id, member.generation), member.digest)
        };
        self.members.iter().map(origin).collect()
    }

    /// Whether a member is live.
    #[must_use]
    pub fn is_live(&self, id: &NodeId) -> bool {
        self.member(id).is_some()
    }

    /// Sets the rank of a live member's entries.
    pub fn rank(&mut self, id: &NodeId, rank: Rank) {
        if let Some(member) = self.member(id) {
            self.set_member(*id, Member { rank, ..member });
            self.view.rank(id, rank);
        }
    }

    /// Puts an entry of this daemon. `None` if the entry already has this value.
    pub fn put(&mut self, key: Key, value: Value) -> Option<Patch> {
        let change = self.store.put(key, value)?;
        self.update_fingerprint(self.store.me());
        self.view.change(self.store.me(), &[change])
    }

    /// Deletes an entry of this daemon. `None` if it does not exist.
    pub fn delete(&mut self, key: &Key) -> Option<Patch> {
        let change = self.store.delete(key)?;
        self.update_fingerprint(self.store.me());
        self.view.change(self.store.me(), &[change])
    }

    /// Begins a new generation of this daemon with the same entries.
    pub fn renew(&mut self, generation: Generation) {
        let me = self.store.me();
        self.store.renew(generation);
        if let Some(member) = self.member(&me) {
            self.set_member(me, Member { generation, ..member });
        }
        self.update_fingerprint(me);
    }

    /// Sets the origin's signature of the version that the replica has.
    pub fn attest(&mut self, origin: &NodeId, attestation: Attestation) {
        self.store.attest(origin, attestation);
    }

    /// Applies an update from `source`. `now_ms` is monotonic; `is_genuine` tells whether the origin has signed its stamp.
    ///
    /// # Errors
    ///
    /// If the update violates the protocol. Nothing has changed then.
    pub fn apply(
        &mut self,
        source: Source,
        update: Update,
        now_ms: u64,
        is_genuine: impl FnOnce(&Update) -> bool,
    ) -> Result<(Applied, Option<Patch>), ApplyError> {
        let origin = update.origin;
        let applied = self.store.apply(source, update, is_genuine)?;
        let Effect::Applied { now, changes, .. } = &applied.effect else { return Ok((applied, None)) };
        let is_live = self.member(&origin).is_some_and(|member| member.generation == now.generation);
        let patch = if is_live && self.view.is_visible(&origin) {
            self.update_fingerprint(origin);
            self.view.change(origin, changes)
        } else {
            self.refresh(origin, now_ms)
        };
        Ok((applied, patch))
    }

    /// The transfer to a replica that has `have`; `None` if it needs none.
    #[must_use]
    pub fn transfer(&self, origin: &NodeId, have: Option<Stamp>) -> Option<Transfer> {
        self.store.transfer(origin, have)
    }

    /// Drops unfinished transfers from a source that is gone.
    pub fn drop_source(&mut self, source: Source) {
        self.store.drop_source(source);
    }

    /// Notes that a member is live in this generation and has this rank. `now_ms` is monotonic.
    pub fn member_up(
        &mut self,
        id: NodeId,
        generation: Generation,
        rank: Rank,
        now_ms: u64,
    ) -> Option<Patch> {
        let digest = self.member(&id).map_or(Digest::EMPTY, |member| member.digest);
        self.set_member(id, Member { generation, rank, digest });
        self.view.rank(&id, rank);
        self.refresh(id, now_ms)
    }

    /// Notes that a member is down. `now_ms` is monotonic.
    pub fn member_down(&mut self, id: NodeId, now_ms: u64) -> Option<Patch> {
        if id == self.store.me() {
            return None;
        }
        if let Some(member) = self.members.remove(&id) {
            self.fingerprint = self.fingerprint.minus(member.value().digest);
        }
        self.refresh(id, now_ms)
    }

    /// Drops content that has been invisible for long enough, and returns the number of origins.
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

    /// When [`expire`](Self::expire) has something to drop; monotonic milliseconds.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        let oldest = self.dead.values().min()?;
        Some(if self.dead.len() > self.tuning.max_dead {
            *oldest
        } else {
            oldest.saturating_add(self.tuning.keep_dead_ms)
        })
    }

    /// Shows or hides an origin, depending on its content and membership.
    fn refresh(&mut self, origin: NodeId, now_ms: u64) -> Option<Patch> {
        self.update_fingerprint(origin);
        let content = self.store.content(&origin);
        let member = self.member(&origin);
        if let (Some(content), Some(member)) = (content, member)
            && content.stamp().generation == member.generation
        {
            self.dead.remove(&origin);
            return self.view.show(origin, member.rank, content);
        }
        if content.is_some() {
            self.dead.entry(origin).or_insert(now_ms);
        }
        self.view.hide(origin)
    }

    /// Updates the contribution of one origin to the fingerprint.
    fn update_fingerprint(&mut self, origin: NodeId) {
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
