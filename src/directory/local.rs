//! What is registered on this host, and what was.
//!
//! [`Registry`] puts the pieces together: [`names`] and [`services`] decide, [`directory`] answers look-ups,
//! [`events`] tells who watches, [`changes`] the cluster. A change is decided under a short lock, is in the directory before the call
//! returns, and is then told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_protocol::epmd::Alive2;

use super::changes::{Changed, Changes};
use super::events::{EventKind, EventLog};
use super::services::{NewService, Registered, Service, ServiceError, Services};
use crate::epmd::names::lookup::Directory;
use crate::epmd::names::table::{Claim, Duplicate, Holder, Names, Registration};

/// Everything registered on this host; shared by all threads.
#[derive(Debug)]
pub struct Registry<H> {
    configured_port: i32,
    names: Mutex<Names<H>>,
    services: Mutex<Services>,
    directory: Directory<H>,
    events: EventLog,
    changes: Changes,
}

impl<H: Holder> Registry<H> {
    /// An empty registry of a daemon that tells clients `configured_port`, and remembers at least `old_names`
    /// names that have left.
    pub fn new(configured_port: i32, old_names: usize) -> Registry<H> {
        Registry {
            configured_port,
            names: Mutex::new(Names::new(old_names)),
            services: Mutex::new(Services::default()),
            directory: Directory::new(),
            events: EventLog::new(),
            changes: Changes::default(),
        }
    }

    /// Registers a node; it can be looked up when this returns.
    pub fn register(
        &self,
        alive2: &Alive2<'_>,
        holder: H,
        now_ms: u64,
    ) -> Result<Arc<Registration<H>>, Duplicate<H>> {
        let mut names = self.names();
        let entry = names.register(alive2, holder, now_ms)?;
        self.directory.publish(Arc::clone(&entry));
        self.tell_name(EventKind::NameUp, &entry, now_ms, None);
        Ok(entry)
    }

    /// Ends the registration `id` of `name`, if it is still the current one; `reason` is told to subscribers.
    pub fn unregister(&self, name: &str, id: u64, now_ms: u64, reason: &'static str) -> bool {
        let mut names = self.names();
        let Some(ended) = names.unregister(name, id) else { return false };
        self.directory.withdraw(name, id);
        self.tell_name(EventKind::NameDown, &ended, now_ms, Some(reason));
        true
    }

    /// Takes a name over from another port mapper until its node registers again; false if it is registered.
    pub fn adopt(&self, alive2: &Alive2<'_>, now_ms: u64) -> bool {
        let mut names = self.names();
        let Some(entry) = names.adopt(alive2, now_ms) else { return false };
        self.directory.publish(Arc::clone(&entry));
        self.tell_name(EventKind::NameUp, &entry, now_ms, Some("adopted"));
        true
    }

    /// The adopted names whose node has not come back although they were adopted before `before_ms`.
    pub fn overdue_adoptions(&self, before_ms: u64) -> Vec<Arc<Registration<H>>> {
        let overdue = |entry: &&Arc<Registration<H>>| {
            matches!(entry.claim, Claim::Adopted) && entry.registered_ms < before_ms
        };
        self.names().iter().filter(overdue).map(Arc::clone).collect()
    }

    /// The registration that has this name.
    pub fn name(&self, name: &str) -> Option<Arc<Registration<H>>> {
        self.names().get(name).map(Arc::clone)
    }

    /// Every registered node, the newest first.
    pub fn all_names(&self) -> Vec<Arc<Registration<H>>> {
        self.names().iter().map(Arc::clone).collect()
    }

    /// How many nodes are registered, and how many old names are remembered.
    pub fn count_names(&self) -> (usize, usize) {
        let names = self.names();
        (names.len(), names.old_names())
    }

    /// The whole answer to NAMES_REQ.
    pub fn render_names(&self) -> Arc<[u8]> {
        self.names().render_names(self.configured_port)
    }

    /// The whole answer to DUMP_REQ.
    pub fn render_dump(&self) -> Arc<[u8]> {
        self.names().render_dump(self.configured_port)
    }

    /// What look-ups are answered from.
    pub fn directory(&self) -> &Directory<H> {
        &self.directory
    }

    /// What has happened.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// What the cluster has to be told.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Marks everything as changed: for a cluster that knows nothing of this host yet.
    pub fn mark_all(&self) {
        self.changes.watch();
        self.all_names().iter().for_each(|entry| self.changes.mark(Changed::Name(Arc::clone(&entry.name))));
        self.all_services().into_iter().for_each(|service| self.changes.mark(Changed::Service(service.name)));
    }

    /// Registers or renews a service.
    pub fn register_service(&self, new: NewService, now_ms: u64) -> Result<Registered, ServiceError> {
        let mut services = self.services();
        let registered = services.register(new, now_ms)?;
        match &registered {
            Registered::New(service) => self.tell_service(EventKind::ServiceUp, service, now_ms, None),
            // Its metadata may have changed.
            Registered::Renewed(service) => self.changes.mark(Changed::Service(Arc::clone(&service.name))),
        }
        Ok(registered)
    }

    /// Ends a service by its name.
    pub fn unregister_service(&self, name: &str, now_ms: u64) -> Option<Service> {
        let mut services = self.services();
        let ended = services.unregister(name)?;
        self.tell_service(EventKind::ServiceDown, &ended, now_ms, Some("unregistered"));
        Some(ended)
    }

    /// Ends a held service whose holder has gone, if it is still the one with this id.
    pub fn release_service(&self, name: &str, id: u64, now_ms: u64) -> bool {
        let mut services = self.services();
        let Some(ended) = services.release(name, id) else { return false };
        self.tell_service(EventKind::ServiceDown, &ended, now_ms, Some("released"));
        true
    }

    /// Ends every service whose time to live is over.
    pub fn expire_services(&self, now_ms: u64) -> usize {
        let mut services = self.services();
        let ended = services.expire(now_ms);
        for service in &ended {
            self.tell_service(EventKind::ServiceDown, service, now_ms, Some("expired"));
        }
        ended.len()
    }

    /// The service that has this name.
    pub fn service(&self, name: &str) -> Option<Service> {
        self.services().get(name).cloned()
    }

    /// Every service, by name.
    pub fn all_services(&self) -> Vec<Service> {
        self.services().iter().cloned().collect()
    }

    /// How many services are registered.
    pub fn count_services(&self) -> usize {
        self.services().len()
    }

    // Events are published while the lock that ordered the changes is held, so that their numbers follow the
    // order in which things happened.
    fn tell_name(&self, kind: EventKind, entry: &Registration<H>, now_ms: u64, reason: Option<&'static str>) {
        self.changes.mark(Changed::Name(Arc::clone(&entry.name)));
        self.events.publish(now_ms, kind, Arc::clone(&entry.name), entry.port, reason);
    }

    fn tell_service(&self, kind: EventKind, service: &Service, now_ms: u64, reason: Option<&'static str>) {
        self.changes.mark(Changed::Service(Arc::clone(&service.name)));
        self.events.publish(now_ms, kind, Arc::clone(&service.name), service.port, reason);
    }

    fn names(&self) -> MutexGuard<'_, Names<H>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
