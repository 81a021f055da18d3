//! The read model of the cluster for the EPMD port: what is registered on other hosts, and from where their daemons may
//! ask.
//!
//! Fed by the core with each change, read by the threads of the EPMD port. The lock is held for one look-up or one
//! change, never longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use pmd_core::replica::view::{Patch, Shift};
use pmd_protocol::epmd::{Alive2, encode};
use pmd_protocol::peer::{Entry, Kind, NodeId};
use tokio::sync::Notify;

/// What other hosts have. This host is not in it: its own names are answered from its own registry.
#[derive(Debug, Default)]
pub struct ClusterDirectory {
    state: RwLock<State>,
    /// Told after each change.
    news: Notify,
}

/// One life of what is registered on another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registered {
    /// Its port there.
    pub port: u16,
    /// What sets this life of a node's name apart from others; 0 for a service.
    pub creation: u32,
    /// When it registered, by that host's clock.
    pub registered_ms: u64,
}

#[derive(Debug)]
struct RemoteName {
    /// The PORT2_RESP that answers a look-up.
    reply: Box<[u8]>,
    registered: Registered,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<NodeId, Origin>,
    /// The daemons that call their host by this name, in lower case; the first of them is asked.
    hosts: BTreeMap<String, BTreeSet<NodeId>>,
    /// Addresses of live members.
    members: HashMap<IpAddr, usize>,
    /// Hosts that have said farewell, until somebody asks for them.
    left: BTreeSet<String>,
    /// Raised whenever hosts come or go, or change what they say about themselves.
    version: u64,
}

/// Which hosts there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Raised with each change.
    pub version: u64,
    /// Those of live members, in lower case.
    pub members: BTreeSet<String>,
    /// Those that have said farewell since the last look.
    pub left: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Origin {
    host: Option<String>,
    leaving: bool,
    relay: bool,
    names: HashMap<Box<str>, RemoteName>,
    services: HashMap<Box<str>, Registered>,
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
        drop(state);
        self.news.notify_one();
    }

    /// Waits until something has changed since the last call. For one task.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Says from which addresses a live member may ask; none when it is gone.
    pub fn set_addresses(&self, origin: NodeId, addresses: &[SocketAddr]) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip().to_canonical()).collect();
        state.set_addresses(origin, addresses);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // This daemon has left, which comes down to the same as if all others had.
        let left = state.hosts.keys().cloned().collect();
        let version = state.version + 1;
        *state = State { left, version, ..State::default() };
        drop(state);
        self.news.notify_one();
    }

    /// Which hosts there are, if that is not what it was in the version `known`.
    pub fn hosts(&self, known: Option<u64>) -> Option<Hosts> {
        if known == Some(self.read().version) {
            return None;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let left = std::mem::take(&mut state.left);
        Some(Hosts { version: state.version, members: state.hosts.keys().cloned().collect(), left })
    }

    /// The version of the hosts there are.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// Whether there is any other host.
    pub fn is_alone(&self) -> bool {
        self.read().hosts.is_empty()
    }

    /// The members that connect others.
    pub fn relays(&self) -> BTreeSet<NodeId> {
        let state = self.read();
        state.origins.iter().filter(|(_, entries)| entries.relay).map(|(origin, _)| *origin).collect()
    }

    /// What a live member calls its host, in lower case.
    pub fn host_of(&self, origin: &NodeId) -> Option<String> {
        self.read().origins.get(origin)?.host.clone()
    }

    /// The host that is meant by a name of it, in lower case.
    pub fn whole_name(&self, host: &str) -> Option<String> {
        let state = self.read();
        let origin = state.find_host(&host.to_lowercase())?.first()?;
        state.origins.get(origin)?.host.clone()
    }

    /// The addresses of a live member.
    pub fn addresses_of(&self, origin: &NodeId) -> Vec<IpAddr> {
        self.read().origins.get(origin).map(|origin| origin.addresses.clone()).unwrap_or_default()
    }

    /// The present life of what `origin` has registered.
    pub fn registered(&self, origin: &NodeId, kind: Kind, name: &str) -> Option<Registered> {
        let state = self.read();
        let origin = state.origins.get(origin)?;
        match kind {
            Kind::NAME => origin.names.get(name).map(|name| name.registered),
            Kind::SERVICE => origin.services.get(name).copied(),
            _ => None,
        }
    }

    /// The node `name` on `host`, and whose daemon has it.
    pub fn find(&self, name: &str, host: &str) -> Option<(NodeId, Registered)> {
        let state = self.read();
        let origins = state.find_host(&host.to_lowercase())?;
        origins
            .iter()
            .find_map(|origin| Some((*origin, state.origins.get(origin)?.names.get(name)?.registered)))
    }

    /// All nodes on `host`, by name; of several daemons there, those of the first.
    pub fn names_on(&self, host: &str) -> BTreeMap<Box<str>, (NodeId, Registered)> {
        let state = self.read();
        let origins = state.find_host(&host.to_lowercase()).into_iter().flatten();
        let mut names = BTreeMap::new();
        for (origin, entries) in origins.filter_map(|origin| Some((origin, state.origins.get(origin)?))) {
            for (name, remote) in &entries.names {
                names.entry(name.clone()).or_insert((*origin, remote.registered));
            }
        }
        names
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
            Some(name) => {
                out.extend_from_slice(&name.reply);
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
                self.version += 1;
                self.unlist(&origin);
                self.hosts.entry(name.clone()).or_default().insert(origin);
                let known = self.origins.entry(origin).or_default();
                known.host = Some(name);
                known.leaving = host.leaving;
                known.relay = host.relay;
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
                let registered = Registered {
                    port: name.port,
                    creation: name.creation,
                    registered_ms: name.registered_ms,
                };
                names.insert(name.name.as_str().into(), RemoteName { reply: reply.into(), registered });
            }
            (_, Some(Entry::Service(service))) => {
                let registered =
                    Registered { port: service.port, creation: 0, registered_ms: service.registered_ms };
                let services = &mut self.origins.entry(origin).or_default().services;
                services.insert(service.name.as_str().into(), registered);
            }
            (Some(Entry::Host(_)), None) => {
                self.version += 1;
                self.unlist(&origin);
            }
            (Some(Entry::Name(name)), None) => {
                if let Some(origin) = self.origins.get_mut(&origin) {
                    origin.names.remove(name.name.as_str());
                }
            }
            (Some(Entry::Service(service)), None) => {
                if let Some(origin) = self.origins.get_mut(&origin) {
                    origin.services.remove(service.name.as_str());
                }
            }
            (None, None) => {}
        }
    }

    fn hide(&mut self, origin: &NodeId) {
        self.version += 1;
        if let Some(Origin { host: Some(host), leaving: true, .. }) = self.origins.get(origin) {
            self.left.insert(host.clone());
        }
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
            relay: false,
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
    fn hosts_are_told_once_and_those_that_leave_are_told_apart() {
        let directory = ClusterDirectory::default();
        directory.apply(ME, &up(OTHER, &[host("Far"), node("bar", 5000)]));
        let hosts = directory.hosts(None).expect("nothing was known");
        assert_eq!(hosts.members, BTreeSet::from(["far".to_owned()]));
        directory.apply(ME, &up(OTHER, &[node("baz", 5001)]));
        assert_eq!(directory.hosts(Some(hosts.version)), None, "a node is no host");
        directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
        let gone = directory.hosts(Some(hosts.version)).expect("it has gone");
        assert!(gone.members.is_empty() && gone.left.is_empty(), "without a farewell");
        directory.apply(ME, &up(OTHER, &[host("far")]));
        directory.clear();
        let left = directory.hosts(Some(gone.version)).expect("this host has left");
        assert_eq!(left.left, BTreeSet::from(["far".to_owned()]));
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
