//! The services registered on this host: names other than Erlang nodes, with a port and arbitrary metadata.
//!
//! A state machine whose caller passes the time. A service exists until it is unregistered, until its time to live
//! expires, or as long as a client holds it, depending on how it was registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_protocol::ServiceName;

use crate::base::clock::Monotonic;

/// Maximum number of services on one host. It limits the damage that a runaway script can do to daemon and cluster.
pub const MAX_SERVICES: usize = 10_000;
/// Maximum number of metadata entries per service.
pub const MAX_METADATA: usize = 64;
/// Maximum size of all metadata keys and values of a service in bytes, so that it easily fits into one frame.
pub const MAX_METADATA_BYTES: usize = 4096;

/// Key-value pairs that describe a service.
pub use crate::config::types::Metadata;

/// One registered service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its id, unique and increasing while this daemon runs.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// The TCP port it listens on.
    pub port: u16,
    /// Key-value pairs from its owner.
    pub metadata: Metadata,
    /// When it registered first, in milliseconds since the Unix epoch.
    pub registered_ms: u64,
    /// When it expires unless it registers again, in milliseconds since the Unix epoch. For display only.
    pub expires_ms: Option<u64>,
    /// The same time on the monotonic clock, which decides.
    pub deadline: Option<Monotonic>,
    /// Whether it is held, so that it ends with the command or connection that registered it.
    pub held: bool,
}

/// A request to register a service.
#[derive(Debug, Clone)]
pub struct NewService {
    /// Its name.
    pub name: ServiceName,
    /// The TCP port it listens on.
    pub port: u16,
    /// Key-value pairs from its owner.
    pub metadata: Metadata,
    /// Milliseconds until it expires unless it registers again.
    pub ttl_ms: Option<u64>,
    /// Whether it is held, so that it ends with the command or connection that registered it.
    pub held: bool,
}

/// Why a service was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The name is taken by a service on another port, or by a held one.
    #[error("a service named {name:?} is registered here with port {port}")]
    Taken {
        /// The name.
        name: String,
        /// The port of the service that has it.
        port: u16,
    },
    /// Port 0 cannot be connected to.
    #[error("clients cannot connect to port 0")]
    Port,
    /// [`MAX_SERVICES`] are registered.
    #[error("this host already has {MAX_SERVICES} services, which is the limit")]
    TooMany,
    /// The metadata exceeds [`MAX_METADATA`] or [`MAX_METADATA_BYTES`].
    #[error("the metadata exceeds {MAX_METADATA} entries or {MAX_METADATA_BYTES} bytes")]
    Metadata,
}

/// The result of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The service is new.
    New(Service),
    /// The service existed already; its metadata and time to live have been replaced.
    Renewed(Service),
}

/// All services of this host.
#[derive(Debug, Default)]
pub struct Services {
    next_id: u64,
    by_name: BTreeMap<Arc<str>, Service>,
}

impl Service {
    /// Whether its time to live has expired at `now`.
    #[must_use]
    pub fn is_over(&self, now: Monotonic) -> bool {
        self.deadline.is_some_and(|end| end <= now)
    }
}

impl Services {
    /// Registers a service, or renews it if name and port are the same and it is not held.
    pub fn register(
        &mut self,
        new: NewService,
        now_ms: u64,
        now: Monotonic,
    ) -> Result<Registered, ServiceError> {
        if new.port == 0 {
            return Err(ServiceError::Port);
        }
        let bytes: usize = new.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if new.metadata.len() > MAX_METADATA || bytes > MAX_METADATA_BYTES {
            return Err(ServiceError::Metadata);
        }
        let expires_ms = new.ttl_ms.map(|ttl| now_ms.saturating_add(ttl));
        let deadline = new.ttl_ms.map(|ttl| now.plus_ms(ttl));
        if let Some(current) = self.by_name.get_mut(new.name.as_ref()) {
            if current.port != new.port || current.held || new.held {
                return Err(ServiceError::Taken { name: current.name.to_string(), port: current.port });
            }
            current.metadata = new.metadata;
            current.expires_ms = expires_ms;
            current.deadline = deadline;
            return Ok(Registered::Renewed(current.clone()));
        }
        if self.by_name.len() >= MAX_SERVICES {
            return Err(ServiceError::TooMany);
        }
        self.next_id += 1;
        let service = Service {
            id: self.next_id,
            name: new.name.as_ref().into(),
            port: new.port,
            metadata: new.metadata,
            registered_ms: now_ms,
            expires_ms,
            deadline,
            held: new.held,
        };
        self.by_name.insert(Arc::clone(&service.name), service.clone());
        Ok(Registered::New(service))
    }

    /// Removes a service by its name.
    pub fn unregister(&mut self, name: &str) -> Option<Service> {
        self.by_name.remove(name)
    }

    /// Removes a service if it still has this id.
    pub fn release(&mut self, name: &str, id: u64) -> Option<Service> {
        if self.by_name.get(name)?.id != id {
            return None;
        }
        self.by_name.remove(name)
    }

    /// Removes all services that have expired at `now`.
    pub fn expire(&mut self, now: Monotonic) -> Vec<Service> {
        let over = |service: &Service| service.is_over(now);
        let names: Vec<_> =
            self.by_name.values().filter(|service| over(service)).map(|s| Arc::clone(&s.name)).collect();
        names.iter().filter_map(|name| self.by_name.remove(name)).collect()
    }

    /// The service with this name.
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.by_name.get(name)
    }

    /// All services, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.by_name.values()
    }

    /// The number of services.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, port: u16) -> NewService {
        NewService {
            name: name.parse().expect("a valid name"),
            port,
            metadata: Metadata::new(),
            ttl_ms: None,
            held: false,
        }
    }

    #[test]
    fn the_same_port_renews_and_another_port_is_rejected() {
        let mut services = Services::default();
        assert!(matches!(
            services.register(new("web", 80), 0, Monotonic::from_ms(0)),
            Ok(Registered::New(_))
        ));
        assert!(matches!(
            services.register(new("web", 80), 0, Monotonic::from_ms(0)),
            Ok(Registered::Renewed(_))
        ));
        assert!(matches!(
            services.register(new("web", 81), 0, Monotonic::from_ms(0)),
            Err(ServiceError::Taken { port: 80, .. })
        ));
    }

    #[test]
    fn a_held_service_cannot_be_registered_again() {
        let mut services = Services::default();
        let held = NewService { held: true, ..new("web", 80) };
        assert!(services.register(held.clone(), 0, Monotonic::from_ms(0)).is_ok());
        assert!(services.register(held, 0, Monotonic::from_ms(0)).is_err());
        assert!(services.register(new("web", 80), 0, Monotonic::from_ms(0)).is_err());
    }

    #[test]
    fn a_service_expires_unless_it_is_renewed() {
        let mut services = Services::default();
        let short = NewService { ttl_ms: Some(100), ..new("web", 80) };
        assert!(services.register(short.clone(), 0, Monotonic::from_ms(0)).is_ok());
        assert!(services.register(short, 50, Monotonic::from_ms(50)).is_ok());
        assert!(services.expire(Monotonic::from_ms(149)).is_empty());
        assert_eq!(services.expire(Monotonic::from_ms(150)).len(), 1);
        assert!(services.is_empty());
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_expire_services() {
        let mut services = Services::default();
        let short = NewService { ttl_ms: Some(100), ..new("web", 80) };
        assert!(services.register(short, 1_000_000, Monotonic::from_ms(0)).is_ok());
        assert!(services.expire(Monotonic::from_ms(99)).is_empty(), "regardless of the wall clock");
        assert_eq!(services.expire(Monotonic::from_ms(100)).len(), 1);
    }

    #[test]
    fn a_late_release_does_not_remove_a_later_service() {
        let mut services = Services::default();
        let Ok(Registered::New(first)) = services.register(new("web", 80), 0, Monotonic::from_ms(0)) else {
            panic!("it is new")
        };
        services.unregister("web");
        assert!(services.register(new("web", 80), 0, Monotonic::from_ms(0)).is_ok());
        assert!(services.release("web", first.id).is_none());
        assert_eq!(services.len(), 1);
    }

    #[test]
    fn invalid_registrations_are_rejected_with_a_reason() {
        let mut services = Services::default();
        assert_eq!(services.register(new("web", 0), 0, Monotonic::from_ms(0)), Err(ServiceError::Port));
        let metadata = Metadata::from([("k".into(), "v".repeat(MAX_METADATA_BYTES))]);
        assert_eq!(
            services.register(NewService { metadata, ..new("web", 80) }, 0, Monotonic::from_ms(0)),
            Err(ServiceError::Metadata)
        );
    }
}
