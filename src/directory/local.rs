//! The registry of this host: Erlang nodes, which the EPMD server keeps, and services.
//!
//! A change is made under a short lock, and lookups see it before the call returns. It is reported to the event log for
//! subscribers, and to the set of changes for the cluster.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_epmd::names::{NameRegistry, Observer, Registration};
use pmd_protocol::peer::{Entry, Metadata, Name, Service as ServiceEntry};

use super::changes::{Changed, Changes};
use super::events::{EventKind, EventLog};
use super::services::{NewService, Registered, Service, ServiceError, Services};
use crate::base::clock::Monotonic;

/// The registry of this host; shared by all threads.
#[derive(Debug)]
pub struct Local {
    host: String,
    names: Arc<NameRegistry>,
    services: Mutex<Services>,
    reports: Reports,
}

/// Where changes are reported.
#[derive(Debug, Clone, Default)]
struct Reports {
    events: Arc<EventLog>,
    changes: Arc<Changes>,
}

impl Observer for Reports {
    fn name_up(&self, entry: &Registration, now_ms: u64, reason: Option<&'static str>) {
        self.name(EventKind::NameUp, entry, now_ms, reason);
    }

    fn name_down(&self, entry: &Registration, now_ms: u64, reason: &'static str) {
        self.name(EventKind::NameDown, entry, now_ms, Some(reason));
    }
}

// Events are published under the lock that orders the changes, so that event numbers have the same order.
impl Reports {
    fn name(&self, kind: EventKind, entry: &Registration, now_ms: u64, reason: Option<&'static str>) {
        self.changes.mark(Changed::Name(Arc::clone(&entry.name)));
        self.events.publish(now_ms, kind, Arc::clone(&entry.name), entry.port, reason);
    }

    fn service(&self, kind: EventKind, service: &Service, now_ms: u64, reason: Option<&'static str>) {
        self.changes.mark(Changed::Service(Arc::clone(&service.name)));
        self.events.publish(now_ms, kind, Arc::clone(&service.name), service.port, reason);
    }
}

impl Local {
    /// Creates an empty registry of the host named `host`. Its daemon reports `configured_port` to clients and
    /// remembers at least `old_names` names that have ended.
    #[must_use]
    pub fn new(host: String, configured_port: i32, old_names: usize) -> Local {
        let reports = Reports::default();
        let names = NameRegistry::new(configured_port, old_names, Box::new(reports.clone()));
        Local { host, names: Arc::new(names), services: Mutex::default(), reports }
    }

    /// The name of this host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The Erlang nodes.
    pub fn names(&self) -> &Arc<NameRegistry> {
        &self.names
    }

    /// The events of this host and of the cluster.
    pub fn events(&self) -> &Arc<EventLog> {
        &self.reports.events
    }

    /// The changes that have yet to be sent to the cluster.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.reports.changes
    }

    /// Marks all nodes and services as changed, for a cluster that does not know this host yet.
    pub fn mark_all(&self) {
        let changes = &self.reports.changes;
        changes.watch();
        self.names.all().iter().for_each(|entry| changes.mark(Changed::Name(Arc::clone(&entry.name))));
        self.all_services().into_iter().for_each(|service| changes.mark(Changed::Service(service.name)));
    }

    /// The entry to send to the cluster for a change, and whether it exists. If not, only the key of the entry matters.
    /// `None` if the name is not valid in the cluster.
    pub fn entry(&self, changed: &Changed) -> Option<(Entry, bool)> {
        match changed {
            Changed::Name(name) => match self.names.get(name) {
                Some(entry) => Some((name_entry(&entry)?, true)),
                None => Some((gone_name(name)?, false)),
            },
            Changed::Service(name) => match self.service(name) {
                Some(service) => Some((service_entry(&service)?, true)),
                None => Some((gone_service(name)?, false)),
            },
        }
    }

    /// All entries of this host.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let names = self.names.all().into_iter().filter_map(|entry| name_entry(&entry));
        let services = self.all_services().into_iter().filter_map(|service| service_entry(&service));
        names.chain(services).map(Arc::new).collect()
    }

    /// The entries with this name: an Erlang node, and a service that has not expired.
    pub fn find(&self, name: &str) -> Vec<Arc<Entry>> {
        let node = self.names.get(name).and_then(|entry| name_entry(&entry));
        let now = Monotonic::now();
        let service = self.service(name).filter(|service| !service.is_over(now));
        let service = service.and_then(|service| service_entry(&service));
        node.into_iter().chain(service).map(Arc::new).collect()
    }

    /// Registers or renews a service.
    ///
    /// # Errors
    ///
    /// If the name is taken, or a limit is exceeded.
    pub fn register_service(&self, new: NewService, now_ms: u64) -> Result<Registered, ServiceError> {
        let mut services = self.services();
        let registered = services.register(new, now_ms, Monotonic::now())?;
        match &registered {
            Registered::New(service) => self.reports.service(EventKind::ServiceUp, service, now_ms, None),
            // The metadata may have changed.
            Registered::Renewed(service) => {
                self.reports.changes.mark(Changed::Service(Arc::clone(&service.name)));
            }
        }
        Ok(registered)
    }

    /// Unregisters a service.
    pub fn unregister_service(&self, name: &str, now_ms: u64) -> Option<Service> {
        let mut services = self.services();
        let ended = services.unregister(name)?;
        self.reports.service(EventKind::ServiceDown, &ended, now_ms, Some("unregistered"));
        Some(ended)
    }

    /// Unregisters a held service whose holder is gone, if it still has this id.
    pub fn release_service(&self, name: &str, id: u64, now_ms: u64) -> bool {
        let mut services = self.services();
        let Some(ended) = services.release(name, id) else { return false };
        self.reports.service(EventKind::ServiceDown, &ended, now_ms, Some("released"));
        true
    }

    /// Removes all services whose time to live has expired, and returns their number.
    pub fn expire_services(&self, now_ms: u64) -> usize {
        let mut services = self.services();
        let ended = services.expire(Monotonic::now());
        for service in &ended {
            self.reports.service(EventKind::ServiceDown, service, now_ms, Some("expired"));
        }
        ended.len()
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<Service> {
        self.services().get(name).cloned()
    }

    /// All services, sorted by name.
    pub fn all_services(&self) -> Vec<Service> {
        self.services().iter().cloned().collect()
    }

    /// The number of services.
    pub fn count_services(&self) -> usize {
        self.services().len()
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_entry(entry: &Registration) -> Option<Entry> {
    Some(Entry::Name(Name {
        name: entry.name.parse().ok()?,
        port: entry.port,
        node_type: entry.node_type,
        protocol: entry.protocol,
        highest_version: entry.highest_version,
        lowest_version: entry.lowest_version,
        creation: entry.creation,
        registered_ms: entry.registered_ms,
        extra: entry.extra.clone(),
    }))
}

fn gone_name(name: &str) -> Option<Entry> {
    Some(Entry::Name(Name {
        name: name.parse().ok()?,
        port: 0,
        node_type: 0,
        protocol: 0,
        highest_version: 0,
        lowest_version: 0,
        creation: 0,
        registered_ms: 0,
        extra: Box::default(),
    }))
}

fn service_entry(service: &Service) -> Option<Entry> {
    Some(Entry::Service(ServiceEntry {
        name: service.name.parse().ok()?,
        instance: 0,
        port: service.port,
        registered_ms: service.registered_ms,
        metadata: Metadata::new(service.metadata.clone()).ok()?,
    }))
}

fn gone_service(name: &str) -> Option<Entry> {
    Some(Entry::Service(ServiceEntry {
        name: name.parse().ok()?,
        instance: 0,
        port: 0,
        registered_ms: 0,
        metadata: Metadata::default(),
    }))
}
