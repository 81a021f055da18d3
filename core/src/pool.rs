//! What is known of members, kept once for all who know it.
//!
//! A daemon keeps what it knows of each member, and for each of its links what the peer knows and has: mostly the same,
//! ten times over. So a fact is made once and shared, and a collection of facts has a pointer for each. Daemons of one
//! process (those of the simulator) can share a pool; what they do does not depend on it.
//!
//! A pool remembers the latest fact of each kind about a member. What is not the latest is still right, only not shared.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pmd_protocol::peer::{Entry, NodeId, Stamp};

use crate::membership::record::{Record, Standing};
use crate::replica::Member;
use crate::replica::content::Content;

/// Something that is about a member.
pub trait About {
    /// Whom it is about.
    fn about(&self) -> &NodeId;
}

/// What somebody knows or has of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    about: NodeId,
    what: T,
}

/// At most one fact about each member; a pointer each.
#[derive(Clone, Debug)]
pub struct Facts<T>(BTreeSet<ById<T>>);

/// A shared fact, in the order of whom it is about.
#[derive(Debug)]
struct ById<T>(Arc<T>);

/// Facts that can be shared. See the module.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Latest>>);

#[derive(Debug, Default)]
struct Latest {
    records: Facts<Record>,
    standings: Facts<Fact<Standing>>,
    stamps: Facts<Fact<Stamp>>,
    members: Facts<Fact<Member>>,
    /// Whether several daemons share it. One alone has each content and each host once anyway.
    several: bool,
    /// Not kept alive, since the only holder of content changes it where it is.
    contents: BTreeMap<NodeId, Weak<Content>>,
    hosts: BTreeMap<NodeId, Weak<Entry>>,
}

impl<T> Fact<T> {
    /// What it says.
    pub fn what(&self) -> &T {
        &self.what
    }
}

impl<T> About for Fact<T> {
    fn about(&self) -> &NodeId {
        &self.about
    }
}

impl About for Record {
    fn about(&self) -> &NodeId {
        &self.identity.id
    }
}

impl Pool {
    /// A pool for several daemons.
    #[must_use]
    pub fn of_several() -> Self {
        Self(Arc::new(Mutex::new(Latest { several: true, ..Latest::default() })))
    }

    /// A record, shared with whoever has the same.
    #[must_use]
    pub fn record(&self, record: Record) -> Arc<Record> {
        self.latest().records.share(record)
    }

    /// How a member is known to be.
    #[must_use]
    pub fn standing(&self, about: NodeId, what: Standing) -> Arc<Fact<Standing>> {
        self.latest().standings.share(Fact { about, what })
    }

    /// What somebody has of an origin.
    #[must_use]
    pub fn stamp(&self, about: NodeId, what: Stamp) -> Arc<Fact<Stamp>> {
        self.latest().stamps.share(Fact { about, what })
    }

    /// What counts of a live member.
    #[must_use]
    pub fn member(&self, about: NodeId, what: Member) -> Arc<Fact<Member>> {
        let mut latest = self.latest();
        if !latest.several {
            return Arc::new(Fact { about, what });
        }
        latest.members.share(Fact { about, what })
    }

    /// The content of an origin, shared with whoever has the same.
    #[must_use]
    pub fn content(&self, about: NodeId, content: Content) -> Arc<Content> {
        let mut latest = self.latest();
        if !latest.several {
            return Arc::new(content);
        }
        weakly(&mut latest.contents, about, content, Content::is_same)
    }

    /// What a daemon says of its host, shared with whoever has the same.
    #[must_use]
    pub fn host(&self, about: NodeId, host: Entry) -> Arc<Entry> {
        let mut latest = self.latest();
        if !latest.several {
            return Arc::new(host);
        }
        weakly(&mut latest.hosts, about, host, Entry::eq)
    }

    /// Forgets what nobody else has any more.
    pub fn trim(&self) {
        let mut latest = self.latest();
        latest.records.drop_unshared();
        latest.standings.drop_unshared();
        latest.stamps.drop_unshared();
        latest.members.drop_unshared();
        latest.contents.retain(|_, content| content.strong_count() > 0);
        latest.hosts.retain(|_, host| host.strong_count() > 0);
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        // Each fact is whole, whatever happened to whoever was adding another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weakly<T>(
    latest: &mut BTreeMap<NodeId, Weak<T>>,
    about: NodeId,
    value: T,
    is_same: impl Fn(&T, &T) -> bool,
) -> Arc<T> {
    if let Some(same) = latest.get(&about).and_then(Weak::upgrade).filter(|same| is_same(same, &value)) {
        return same;
    }
    let value = Arc::new(value);
    latest.insert(about, Arc::downgrade(&value));
    value
}

impl<T: About> Facts<T> {
    /// What is known of a member.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Arc<T>> {
        self.0.get(id).map(|fact| &fact.0)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().map(|fact| &fact.0)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a fact in the place of the one about the same member; that one.
    pub fn insert(&mut self, fact: Arc<T>) -> Option<Arc<T>> {
        self.0.replace(ById(fact)).map(|fact| fact.0)
    }

    /// Takes out what is known of a member.
    pub fn remove(&mut self, id: &NodeId) -> Option<Arc<T>> {
        self.0.take(id).map(|fact| fact.0)
    }

    /// Forgets all of which this does not hold.
    pub fn retain(&mut self, mut holds: impl FnMut(&T) -> bool) {
        self.0.retain(|fact| holds(&fact.0));
    }

    fn drop_unshared(&mut self) {
        self.0.retain(|fact| Arc::strong_count(&fact.0) > 1);
    }
}

impl<T: About + PartialEq> Facts<T> {
    fn share(&mut self, fact: T) -> Arc<T> {
        if let Some(same) = self.get(fact.about()).filter(|known| ***known == fact) {
            return Arc::clone(same);
        }
        let fact = Arc::new(fact);
        self.insert(Arc::clone(&fact));
        fact
    }
}

impl<T> Default for Facts<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T> Clone for ById<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: About> Borrow<NodeId> for ById<T> {
    fn borrow(&self) -> &NodeId {
        self.0.about()
    }
}

impl<T: About> PartialEq for ById<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.about() == other.0.about()
    }
}

impl<T: About> Eq for ById<T> {}

impl<T: About> PartialOrd for ById<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: About> Ord for ById<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.about().cmp(other.0.about())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64) -> Stamp {
        Stamp { version: pmd_protocol::peer::Version(version), ..Stamp::default() }
    }

    #[test]
    fn what_is_the_same_is_there_once_and_only_while_somebody_has_it() {
        let (pool, id) = (Pool::default(), NodeId::new([1; 32]));
        let (one, same, other) =
            (pool.stamp(id, stamp(1)), pool.stamp(id, stamp(1)), pool.stamp(id, stamp(2)));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert_eq!((one.what(), other.what()), (&stamp(1), &stamp(2)));
        drop((one, same));
        pool.trim();
        assert_eq!(pool.latest().stamps.len(), 1);
        drop(other);
        pool.trim();
        assert!(pool.latest().stamps.is_empty());
    }

    #[test]
    fn a_later_fact_takes_the_place_of_the_one_before() {
        let pool = Pool::default();
        let mut facts = Facts::default();
        for number in 0..3 {
            assert!(facts.insert(pool.stamp(NodeId::new([number; 32]), stamp(1))).is_none());
        }
        let id = NodeId::new([1; 32]);
        let before = facts.insert(pool.stamp(id, stamp(5)));
        assert_eq!(before.map(|fact| *fact.what()), Some(stamp(1)));
        assert_eq!(facts.get(&id).map(|fact| *fact.what()), Some(stamp(5)));
        assert_eq!(facts.iter().map(|fact| fact.what().version.0).collect::<Vec<_>>(), [1, 5, 1]);
        facts.retain(|fact| fact.what().version.0 == 1);
        assert_eq!(facts.len(), 2);
        assert!(facts.remove(&NodeId::MIN).is_some() && facts.len() == 1);
    }
}
