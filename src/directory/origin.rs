//! The nodes and services of one other daemon.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use pmd_protocol::peer::{Entry, Host, Kind};

/// The nodes and services of another daemon.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub(super) host: Option<Arc<Entry>>,
    pub(super) names: HashSet<ByName>,
    pub(super) services: HashSet<ByName>,
    pub(super) addresses: Vec<SocketAddr>,
}

/// An entry that is hashed by its name. It is shared with the core, so that it is in memory only once.
#[derive(Debug, Clone)]
pub(super) struct ByName(pub(super) Arc<Entry>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl Hash for ByName {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.0.name().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for ByName {}

impl Origin {
    /// The properties of its host, once they are known.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        match self.host.as_deref() {
            Some(Entry::Host(host)) => Some(host),
            _ => None,
        }
    }

    /// The name of its host, or an empty string if it is not known yet.
    #[must_use]
    pub fn host_name(&self) -> &str {
        self.host().map_or("", |host| host.host.as_str())
    }

    /// Its nodes and services.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.names.iter().chain(&self.services).map(|entry| &entry.0)
    }

    /// The number of its nodes.
    #[must_use]
    pub fn count_names(&self) -> usize {
        self.names.len()
    }

    /// The number of its services.
    #[must_use]
    pub fn count_services(&self) -> usize {
        self.services.len()
    }

    /// Its node or service with this name.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Entry>> {
        let all = match kind {
            Kind::NAME => &self.names,
            Kind::SERVICE => &self.services,
            _ => return None,
        };
        all.get(name).map(|entry| &entry.0)
    }

    /// The addresses at which it can be reached, in order of preference.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}
