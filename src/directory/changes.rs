//! The changes of this host that have yet to be sent to the cluster: only the names, not their new state.
//!
//! The task that sends them reads the current state of each name when its turn comes. So registrations never wait,
//! nothing is lost, and frequent changes of one name are merged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// A name that has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// The Erlang node with this name was registered, replaced or unregistered.
    Name(Arc<str>),
    /// The service with this name was registered, changed or unregistered.
    Service(Arc<str>),
}

/// The names that have changed since the last [`take`](Changes::take). Nothing is recorded before the first
/// [`watch`](Changes::watch).
#[derive(Debug, Default)]
pub struct Changes {
    watched: AtomicBool,
    // Has at most one element per name, however often it changes.
    changed: Mutex<BTreeSet<Changed>>,
    news: Notify,
}

impl Changes {
    /// Records changes from now on.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Records a change.
    pub fn mark(&self, changed: Changed) {
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.is_empty();
        all.insert(changed);
        drop(all);
        // The task that is notified of the first change takes all of them.
        if first {
            self.news.notify_one();
        }
    }

    /// The changes since the last call.
    pub fn take(&self) -> BTreeSet<Changed> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there are changes.
    pub async fn wait(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_merged_and_recorded_only_if_watched() {
        let changes = Changes::default();
        changes.mark(Changed::Name("early".into()));
        changes.watch();
        changes.mark(Changed::Name("a".into()));
        changes.mark(Changed::Service("a".into()));
        changes.mark(Changed::Name("a".into()));
        changes.wait().await;
        let all: Vec<_> = changes.take().into_iter().collect();
        assert_eq!(all, [Changed::Name("a".into()), Changed::Service("a".into())]);
        assert!(changes.take().is_empty());
        changes.mark(Changed::Name("b".into()));
        changes.wait().await;
        assert_eq!(changes.take().len(), 1);
    }
}
