//! Facts about members, shared between their holders.
//!
//! A daemon stores what it knows about each member and, for each of its links, what the peer knows. Most of these
//! values are equal, about ten copies of each, so a fact is allocated once and collections hold pointers to it.
//!
//! The simulator runs many daemons in one process and shares equal facts between them as well. [`Share`] is where it
//! hooks in; in production, [`Unshared`] does nothing.

use std::any::Any;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use pmd_protocol::peer::NodeId;

/// Allocates values that other daemons in the same process may hold as well.
pub trait Share: Clone + Debug {
    /// Returns the value in an allocation that other daemons may share. `member` is the member that the value is about.
    fn share<T: Any + PartialEq + Send + Sync>(&self, member: &NodeId, value: T) -> Arc<T>;
}

/// Shares nothing, for processes with a single daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unshared;

impl Share for Unshared {
    fn share<T: Any + PartialEq + Send + Sync>(&self, _: &NodeId, value: T) -> Arc<T> {
        Arc::new(value)
    }
}

/// A value that names the member it is about.
pub trait About {
    /// The member.
    fn about(&self) -> &NodeId;
}

/// A value and the member it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    about: NodeId,
    value: T,
}

impl<T> Fact<T> {
    /// A value about a member.
    #[must_use]
    pub fn new(about: NodeId, value: T) -> Self {
        Self { about, value }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T> About for Fact<T> {
    fn about(&self) -> &NodeId {
        &self.about
    }
}

/// At most one fact about each member, a pointer each.
#[derive(Clone, Debug)]
pub struct Facts<T>(BTreeSet<ById<T>>);

/// A shared fact, ordered by the member it is about.
#[derive(Debug)]
struct ById<T>(Arc<T>);

impl<T: About> Facts<T> {
    /// The fact about a member.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Arc<T>> {
        self.0.get(id).map(|fact| &fact.0)
    }

    /// All facts, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().map(|fact| &fact.0)
    }

    /// The number of facts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no facts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a fact, and returns the fact about the same member that it replaces.
    pub fn insert(&mut self, fact: Arc<T>) -> Option<Arc<T>> {
        self.0.replace(ById(fact)).map(|fact| fact.0)
    }

    /// Removes the fact about a member.
    pub fn remove(&mut self, id: &NodeId) -> Option<Arc<T>> {
        self.0.take(id).map(|fact| fact.0)
    }

    /// Keeps only the facts for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|fact| keep(&fact.0));
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

    #[test]
    fn a_later_fact_replaces_the_earlier_one() {
        let mut facts = Facts::default();
        for number in 0..3 {
            assert!(facts.insert(Arc::new(Fact::new(NodeId::new([number; 32]), 1))).is_none());
        }
        let id = NodeId::new([1; 32]);
        let replaced = facts.insert(Arc::new(Fact::new(id, 5)));
        assert_eq!(replaced.map(|fact| *fact.value()), Some(1));
        assert_eq!(facts.get(&id).map(|fact| *fact.value()), Some(5));
        assert_eq!(facts.iter().map(|fact| *fact.value()).collect::<Vec<_>>(), [1, 5, 1]);
        facts.retain(|fact| *fact.value() == 1);
        assert_eq!(facts.len(), 2);
        assert!(facts.remove(&NodeId::MIN).is_some() && facts.len() == 1);
    }
}
