//! Extracts a node's or service's registration from an entry of another host.

use pmd_protocol::epmd::Alive2;
use pmd_protocol::peer::Entry;

/// Identifies one registration of a name on another host, as opposed to earlier and later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registered {
    /// Its port on that host.
    pub port: u16,
    /// The creation of a node; 0 for a service.
    pub creation: u32,
    /// When it registered, by that host's clock, in milliseconds since the Unix epoch.
    pub registered_ms: u64,
}

impl Registered {
    /// The registration in an entry; `None` for a host entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Registered> {
        match entry {
            Entry::Name(name) => {
                let (port, creation, registered_ms) = (name.port, name.creation, name.registered_ms);
                Some(Registered { port, creation, registered_ms })
            }
            Entry::Service(service) => {
                let (port, registered_ms) = (service.port, service.registered_ms);
                Some(Registered { port, creation: 0, registered_ms })
            }
            Entry::Host(_) => None,
        }
    }
}

/// The registration data of a node, from its entry; `None` for other entries.
#[must_use]
pub fn alive2(entry: &Entry) -> Option<Alive2<'_>> {
    let Entry::Name(name) = entry else { return None };
    Some(Alive2 {
        port: name.port,
        node_type: name.node_type,
        protocol: name.protocol,
        highest_version: name.highest_version,
        lowest_version: name.lowest_version,
        name: name.name.as_str(),
        extra: &name.extra,
    })
}
