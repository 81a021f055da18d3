//! What the cluster has to be told about this host: names that have changed, and not what they have become.
//!
//! Whoever tells the cluster reads the present state of each name when it gets to it. So nothing has to wait, nothing is
//! lost, and what changes often is told as often as there is time to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// The Erlang node of this name: it may be there, be another one, or be gone.
    Name(Arc<str>),
    /// The service of this name.
    Service(Arc<str>),
}

/// The names that have changed since somebody asked. As long as nobody does, nothing is remembered.
#[derive(Debug, Default)]
pub struct Changes {
    watched: AtomicBool,
    // At most one for each name that there is or was since the last look.
    changed: Mutex<BTreeSet<Changed>>,
    news: Notify,
}

impl Changes {
    /// Remembers changes from now on.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Remembers a change.
    pub fn mark(&self, changed: Changed) {
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.is_empty();
        all.insert(changed);
        drop(all);
        // Whoever is told of the first will find the others.
        if first {
            self.news.notify_one();
        }
    }

    /// The changes since the last call.
    pub fn take(&self) -> BTreeSet<Changed> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there are some.
    pub async fn wait(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_told_once_each_and_only_to_who_watches() {
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
