//! Facts that are allocated once and shared by many simulated daemons.
//!
//! A thousand daemons know nearly the same facts about a thousand members each. The behaviour of a daemon never depends
//! on whether a fact is shared.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pmd_protocol::peer::NodeId;

use crate::facts::Share;

/// The latest fact of each type about each member. Older facts stay valid and are no longer shared.
///
/// The pool keeps no fact alive, so that the only holder of a registry's content can change it in place.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Latest>>);

type Latest = BTreeMap<TypeId, BTreeMap<NodeId, Weak<dyn Any + Send + Sync>>>;

impl Pool {
    /// Frees the memory of facts that no daemon holds.
    pub(super) fn trim(&self) {
        for latest in self.latest().values_mut() {
            latest.retain(|_, fact| fact.strong_count() > 0);
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        // Facts are written in one step, so a poisoned lock does not mean that one is incomplete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share for Pool {
    fn share<T: Any + PartialEq + Send + Sync>(&self, member: &NodeId, value: T) -> Arc<T> {
        let mut latest = self.latest();
        let latest = latest.entry(TypeId::of::<T>()).or_default();
        let known = latest.get(member).and_then(Weak::upgrade).and_then(|fact| fact.downcast().ok());
        if let Some(same) = known.filter(|known: &Arc<T>| **known == value) {
            return same;
        }
        let value = Arc::new(value);
        let fact: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&value);
        latest.insert(*member, Arc::downgrade(&fact));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_facts_are_allocated_once_while_somebody_holds_them() {
        let (pool, id) = (Pool::default(), NodeId::new([1; 32]));
        let (one, same, other) = (pool.share(&id, 1), pool.share(&id, 1), pool.share(&id, 2));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert_eq!((*one, *other), (1, 2));
        drop((one, same));
        pool.trim();
        assert!(Arc::ptr_eq(&other, &pool.share(&id, 2)));
        drop(other);
        pool.trim();
        assert!(pool.latest().values().all(BTreeMap::is_empty));
    }
}
