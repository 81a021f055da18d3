//! The read model of the cluster for the EPMD port: what is registered on other hosts, and from where their daemons may
//! ask.
//!
//! Fed by the core with each change, read by the threads of the EPMD port. The lock is held for one look-up or one
//! change, never longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use pmd_core::registry::directory::{Patch, Shift};
use pmd_protocol::epmd::{Alive2, encode};
use pmd_protocol::peer::{Entry, NodeId};

/// What other hosts have. This host is not in it: its own names are answered from its own registry.
#[derive(Debug, Default)]
pub struct ClusterDirectory {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<NodeId, Origin>,
    /// The daemons that call their host by this name, in lower case; the first of them is asked.
    hosts: BTreeMap<String, BTreeSet<NodeId>>,
    /// Addresses of live members.
    members: HashMap<IpAddr, usize>,
}

#[derive(Debug, Default)]
struct Origin {
    host: Option<String>,
    /// Names and the PORT2_RESP that answers a look-up.
    names: HashMap<Box<str>, Box<[u8]>>,
    addresses: Vec<IpAddr>,
}

impl ClusterDirectory {
    /// Carries out a change that the core tells of; `me` is this daemon.
    pub fn apply(&self, me: NodeId, patch: &Patch) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match patch {
            Patch::Change { origin, .. } | Patch::Hide { origin, .. } if *origin == me => {}
            Patch::Change { origin, shifts } => shifts.iter().for_each(|shift| state.shift(*origin, shift)),
            Patch::Hide { origin, .. } => state.hide(origin),
        }
    }

    /// Says from which addresses a live member may ask; none when it is gone.
    pub fn set_addresses(&self, origin: NodeId, addresses: &[SocketAddr]) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip().to_canonical()).collect();
        state.set_addresses(origin, addresses);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// Whether a live member has this address.
    pub fn is_member(&self, address: IpAddr) -> bool {
        self.read().members.contains_key(&address.to_canonical())
    }

    /// Appends the PORT2_RESP for `name` on `host` to `out`; false if there is no such node.
    ///
    /// A host is found by the name that it calls itself; if none is called that, by the short form of it.
    pub fn answer(&self, name: &str, host: &str, out: &mut Vec<u8>) -> bool {
        let state = self.read();
        let host = host.to_lowercase();
        let Some(origins) = state.find_host(&host) else { return false };
        match origins.iter().find_map(|origin| state.origins.get(origin)?.names.get(name)) {
            Some(reply) => {
                out.extend_from_slice(reply);
                true
            }
            None => false,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two names mean the same host: where both are long names, the domains count as well.
#[must_use]
pub fn same_host(one: &str, other: &str) -> bool {
    if one.contains('.') && other.contains('.') {
        return one.eq_ignore_ascii_case(other);
    }
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    short(one) == short(other)
}

impl State {
    fn find_host(&self, host: &str) -> Option<&BTreeSet<NodeId>> {
        if let Some(exact) = self.hosts.get(host) {
            return Some(exact);
        }
        if let Some((short, _)) = host.split_once('.') {
            return self.hosts.get(short);
        }
        // All long forms of a short name stand together in the order of names.
        let from = format!("{host}.");
        let (long, origins) = self.hosts.range(from.clone()..).next()?;
        long.starts_with(&from).then_some(origins)
    }

    fn shift(&mut self, origin: NodeId, shift: &Shift) {
        match (shift.before.as_deref(), shift.after.as_deref()) {
            (_, Some(Entry::Host(host))) => {
                let name = host.host.as_str().to_lowercase();
                self.unlist(&origin);
                self.hosts.entry(name.clone()).or_default().insert(origin);
                self.origins.entry(origin).or_default().host = Some(name);
            }
            (_, Some(Entry::Name(name))) => {
                let alive2 = Alive2 {
                    port: name.port,
                    node_type: name.node_type,
                    protocol: name.protocol,
                    highest_version: name.highest_version,
                    lowest_version: name.lowest_version,
                    name: name.name.as_str(),
                    extra: &name.extra,
                };
                let mut reply = Vec::new();
                encode::port2_found(&alive2, &mut reply);
                let names = &mut self.origins.entry(origin).or_default().names;
                names.insert(name.name.as_str().into(), reply.into());
            }
            (Some(Entry::Host(_)), None) => self.unlist(&origin),
            (Some(Entry::Name(name)), None) => {
                if let Some(origin) = self.origins.get_mut(&origin) {
                    origin.names.remove(name.name.as_str());
                }
            }
            _ => {}
        }
    }

    fn hide(&mut self, origin: &NodeId) {
        self.unlist(origin);
        self.set_addresses(*origin, Vec::new());
        self.origins.remove(origin);
    }

    /// Takes an origin out of the index of hosts.
    fn unlist(&mut self, origin: &NodeId) {
        let Some(host) = self.origins.get_mut(origin).and_then(|origin| origin.host.take()) else { return };
        if let Some(all) = self.hosts.get_mut(&host) {
            all.remove(origin);
            if all.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }

    fn set_addresses(&mut self, origin: NodeId, addresses: Vec<IpAddr>) {
        let known = &mut self.origins.entry(origin).or_default().addresses;
        let before = std::mem::replace(known, addresses.clone());
        for address in before {
            if let Some(count) = self.members.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.members.remove(&address);
                }
            }
        }
        for address in addresses {
            *self.members.entry(address).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pmd_protocol::peer::{Host, Metadata, Name};

    use super::*;

    const ME: NodeId = NodeId::new([1; 32]);
    const OTHER: NodeId = NodeId::new([2; 32]);

    fn host(name: &str) -> Arc<Entry> {
        Arc::new(Entry::Host(Host {
            host: name.parse().expect("a name"),
            version: "1".into(),
            metadata: Metadata::default(),
            leaving: false,
        }))
    }

    fn node(name: &str, port: u16) -> Arc<Entry> {
        Arc::new(Entry::Name(Name {
            name: name.parse().expect("a name"),
            port,
            node_type: 77,
            protocol: 0,
            highest_version: 6,
            lowest_version: 5,
            creation: 1,
            registered_ms: 0,
            extra: Box::default(),
        }))
    }

    fn up(origin: NodeId, entries: &[Arc<Entry>]) -> Patch {
        let shifts = entries.iter().map(|entry| Shift { before: None, after: Some(Arc::clone(entry)) });
        Patch::Change { origin, shifts: shifts.collect() }
    }

    fn answers(directory: &ClusterDirectory, name: &str, host: &str) -> bool {
        directory.answer(name, host, &mut Vec::new())
    }

    #[test]
    fn a_node_is_found_on_its_host_until_that_is_hidden() {
        let directory = ClusterDirectory::default();
        directory.apply(ME, &up(OTHER, &[host("Far.example.org"), node("bar", 5000)]));
        for found in ["far.example.org", "FAR.EXAMPLE.ORG", "far"] {
            assert!(answers(&directory, "bar", found), "{found}");
        }
        for not in ["fa", "far.example.com.x", "example.org", ""] {
            assert!(!answers(&directory, "bar", not), "{not}");
        }
        assert!(!answers(&directory, "foo", "far"));
        directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
        assert!(!answers(&directory, "bar", "far"));
    }

    #[test]
    fn this_host_is_not_in_it() {
        let directory = ClusterDirectory::default();
        directory.apply(ME, &up(ME, &[host("here"), node("foo", 5000)]));
        assert!(!answers(&directory, "foo", "here"));
    }

    #[test]
    fn a_member_may_ask_as_long_as_it_lives() {
        let directory = ClusterDirectory::default();
        let address: SocketAddr = "10.0.0.2:4369".parse().expect("an address");
        directory.apply(ME, &up(OTHER, &[host("far")]));
        directory.set_addresses(OTHER, &[address, address]);
        directory.set_addresses(OTHER, &[address]);
        assert!(directory.is_member(address.ip()));
        assert!(directory.is_member("::ffff:10.0.0.2".parse().expect("an address")));
        directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
        assert!(!directory.is_member(address.ip()));
    }
}
