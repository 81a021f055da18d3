//! The Erlang nodes registered on this host, shared by all threads.
//!
//! [`table`] decides which node holds a name; [`lookup`] serves the hot path. A change is decided under a short lock,
//! can be looked up before the call returns, and is then reported to the [`Observer`].

pub mod creation;
pub mod holder;
pub mod lookup;
pub mod old_names;
pub mod table;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_protocol::epmd::Alive2;

use holder::NodeSocket;
use lookup::LookupTable;
use table::{Claim, Duplicate, Names};

/// A registration that a node's connection holds.
pub type Registration = table::Registration<NodeSocket>;

/// Is notified of every change, in the order in which the changes happen.
///
/// It is called while the lock that orders changes is held, so it must neither block nor call back.
pub trait Observer: Debug + Send + Sync {
    /// A node was registered at `now_ms` (milliseconds since the Unix epoch).
    fn name_up(&self, entry: &Registration, now_ms: u64, reason: Option<&'static str>);

    /// A registration ended.
    fn name_down(&self, entry: &Registration, now_ms: u64, reason: &'static str);
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn name_up(&self, _: &Registration, _: u64, _: Option<&'static str>) {}

    fn name_down(&self, _: &Registration, _: u64, _: &'static str) {}
}

/// All registered nodes.
#[derive(Debug)]
pub struct NameRegistry {
    configured_port: i32,
    names: Mutex<Names<NodeSocket>>,
    lookup: LookupTable<NodeSocket>,
    observer: Box<dyn Observer>,
}

impl NameRegistry {
    /// An empty registry that reports `configured_port` to clients and remembers at least `old_names` unregistered
    /// names.
    #[must_use]
    pub fn new(configured_port: i32, old_names: usize, observer: Box<dyn Observer>) -> NameRegistry {
        NameRegistry {
            configured_port,
            names: Mutex::new(Names::new(old_names)),
            lookup: LookupTable::new(),
            observer,
        }
    }

    /// The port that is reported to clients.
    #[must_use]
    pub fn configured_port(&self) -> i32 {
        self.configured_port
    }

    /// Registers a node; it can be looked up when this returns.
    ///
    /// # Errors
    ///
    /// If the name is taken.
    pub fn register(
        &self,
        alive2: &Alive2<'_>,
        holder: NodeSocket,
        now_ms: u64,
    ) -> Result<Arc<Registration>, Duplicate<NodeSocket>> {
        let mut names = self.names();
        let entry = names.register(alive2, holder, now_ms)?;
        self.lookup.publish(Arc::clone(&entry));
        self.observer.name_up(&entry, now_ms, None);
        Ok(entry)
    }

    /// Ends the registration `id` of `name`, if it is still the current one, and reports `reason` to the observer.
    pub fn unregister(&self, name: &str, id: u64, now_ms: u64, reason: &'static str) -> bool {
        let mut names = self.names();
        let Some(ended) = names.unregister(name, id) else { return false };
        self.lookup.withdraw(name, id);
        self.observer.name_down(&ended, now_ms, reason);
        true
    }

    /// Takes over a name from another port mapper until its node registers again; returns false if the name is already
    /// registered.
    pub fn adopt(&self, alive2: &Alive2<'_>, now_ms: u64) -> bool {
        let mut names = self.names();
        let Some(entry) = names.adopt(alive2, now_ms) else { return false };
        self.lookup.publish(Arc::clone(&entry));
        self.observer.name_up(&entry, now_ms, Some("adopted"));
        true
    }

    /// The adopted names.
    pub fn adopted(&self) -> Vec<Arc<Registration>> {
        self.names().iter().filter(|entry| matches!(entry.claim, Claim::Adopted)).map(Arc::clone).collect()
    }

    /// The registration of a name.
    pub fn get(&self, name: &str) -> Option<Arc<Registration>> {
        self.names().get(name).map(Arc::clone)
    }

    /// All registrations, newest first.
    pub fn all(&self) -> Vec<Arc<Registration>> {
        self.names().iter().map(Arc::clone).collect()
    }

    /// The number of registered nodes, and of remembered old names.
    pub fn count(&self) -> (usize, usize) {
        let names = self.names();
        (names.len(), names.old_names())
    }

    /// Passes the registration of a node to `answer`; returns false if there is no such node. This is the hot path: it
    /// shares no lock with registrations of other names and allocates nothing.
    pub fn find(&self, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        self.lookup.find(name, answer)
    }

    /// The complete answer to NAMES_REQ.
    pub fn render_names(&self) -> Arc<[u8]> {
        self.names().render_names(self.configured_port)
    }

    /// The complete answer to DUMP_REQ.
    pub fn render_dump(&self) -> Arc<[u8]> {
        self.names().render_dump(self.configured_port)
    }

    fn names(&self) -> MutexGuard<'_, Names<NodeSocket>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
