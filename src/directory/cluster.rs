//! The read model of the cluster: the nodes and services of other hosts, and the addresses of their daemons.
//!
//! The core applies each change; all others only read. The lock is held for at most one lookup, one change, or a copy
//! of one pointer per host.

mod aliases;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pmd_core::replica::view::{EntryChange, Patch};
use pmd_protocol::peer::{Entry, Kind, NodeId};
use tokio::sync::Notify;

use super::agreed_aliases::AgreedAliases;
use super::held_names::HeldNames;
use super::origin::ByName;
pub use super::origin::Origin;
pub use super::registered::{Registered, alive2};
use crate::base::clock::now_ms;

/// The directory of other hosts. This host is not included: see [`Local`](super::local::Local).
#[derive(Debug, Default)]
pub struct ClusterDirectory {
    state: RwLock<State>,
    /// This host's own alias. Apart from the state because the hot path reads it.
    own_alias: AtomicU32,
    /// Notified after each change.
    changed: Notify,
}

/// The hosts of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// The version, which increases with each change.
    pub version: u64,
    /// The hosts of live members, in lower case.
    pub members: BTreeSet<String>,
    /// The hosts that left the cluster, as opposed to failing, since the last call.
    pub left: BTreeSet<String>,
    /// The aliases that all hosts agree on, by host.
    pub aliases: BTreeMap<String, Ipv4Addr>,
    /// All aliases that daemons have published, whoever gets them.
    pub published: BTreeSet<Ipv4Addr>,
}

/// A host name that a daemon claims and does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The name, in lower case.
    pub host: String,
    /// The daemon that claims it.
    pub by: NodeId,
    /// The daemon that has it; none for the daemon of this host.
    pub holder: Option<NodeId>,
    /// When that one failed, in milliseconds since the Unix epoch, if it has.
    pub gone_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<NodeId, Arc<Origin>>,
    /// The daemons that claim a host name, in lower case, in the order in which they did.
    hosts: BTreeMap<String, Vec<NodeId>>,
    /// Which of them the name means.
    held: HeldNames,
    /// Which of them have which alias.
    aliases: AgreedAliases,
    /// Daemons that get no name.
    expelled: BTreeSet<NodeId>,
    /// The live members that advertise each address.
    members: HashMap<IpAddr, Vec<NodeId>>,
    /// Hosts that have left since the last call of [`ClusterDirectory::hosts`].
    left: BTreeSet<String>,
    /// Increases whenever a host joins, leaves or changes its properties.
    version: u64,
}

impl ClusterDirectory {
    /// Creates a directory in which names and aliases belong to those that `held` and `aliases` remember.
    #[must_use]
    pub fn new(held: HeldNames, aliases: AgreedAliases) -> ClusterDirectory {
        let own_alias = AtomicU32::new(aliases.own().address.to_bits());
        let state = State { held, aliases, ..State::default() };
        ClusterDirectory { state: RwLock::new(state), own_alias, changed: Notify::new() }
    }

    /// Which daemon has each host name and alias, as text for [`HeldNames::read`] and [`AgreedAliases::new`], if that
    /// differs from the version `known`, and its version.
    pub fn held_names(&self, known: u64) -> Option<(u64, String)> {
        let state = self.read();
        let changes = state.held.changes() + state.aliases.changes();
        (changes != known).then(|| (changes, state.held.write() + &state.aliases.write()))
    }

    /// Takes its host names from a daemon that is expelled, so that the next one that claims them gets them, or lets it have
    /// names again.
    pub fn set_expelled(&self, id: NodeId, expelled: bool) {
        let mut state = self.write();
        if expelled {
            state.expelled.insert(id);
            state.aliases.expel(now_ms(), id);
            for name in state.held.release(id) {
                state.settle(&name);
            }
        } else {
            state.expelled.remove(&id);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Gives names and aliases whose daemons have been gone for too long to those that claim them.
    pub fn settle_names(&self) {
        self.settle_aliases();
        let is_free = |state: &State| {
            let free = state.hosts.keys().filter(|host| state.meant(host).is_none());
            free.cloned().collect::<Vec<_>>()
        };
        let free = is_free(&self.read());
        if free.is_empty() {
            return;
        }
        let mut state = self.write();
        free.iter().for_each(|host| state.settle(host));
        drop(state);
        self.changed.notify_one();
    }

    /// The claim of a live member to a host name that it does not get.
    pub fn lost_claim(&self, id: &NodeId) -> Option<Claim> {
        let state = self.read();
        let host = state.origins.get(id)?.host()?.host.as_str().to_lowercase();
        let (holder, gone_ms) = state.held.holder(&host).filter(|(holder, _)| holder != id)?;
        Some(Claim { host, by: *id, holder: Some(holder), gone_ms })
    }

    /// Whether a live member has the host name that it claims.
    pub fn has_its_name(&self, id: &NodeId) -> bool {
        self.read().has_its_name(id)
    }

    /// Applies a change; `own` is this daemon.
    pub fn apply(&self, own: NodeId, patch: &Patch) {
        let mut state = self.write();
        match patch {
            Patch::Change { origin, .. } | Patch::Hide { origin, .. } if *origin == own => {}
            Patch::Change { origin, changes } => {
                changes.iter().for_each(|change| state.change(*origin, change));
            }
            Patch::Hide { origin, .. } => state.hide(origin),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until something has changed since the last call. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sets the addresses at which a live member can be reached, in order of preference; none once it is gone.
    pub fn set_addresses(&self, origin: NodeId, addresses: &[SocketAddr]) {
        self.write().set_addresses(origin, addresses);
    }

    /// Removes all hosts, because this daemon has left the cluster.
    pub fn clear(&self) {
        let mut state = self.write();
        // For this daemon, that is the same as if all others had left.
        let left = state.hosts.keys().cloned().collect();
        let version = state.version + 1;
        let mut held = std::mem::take(&mut state.held);
        let mut aliases = std::mem::take(&mut state.aliases);
        aliases.clear(now_ms());
        for (id, origin) in &state.origins {
            held.gone(now_ms(), &origin.host_name().to_lowercase(), *id, false);
        }
        let expelled = std::mem::take(&mut state.expelled);
        *state = State { left, version, held, aliases, expelled, ..State::default() };
        drop(state);
        self.changed.notify_one();
    }

    /// The hosts, if they differ from the version `known`.
    pub fn hosts(&self, known: Option<u64>) -> Option<Hosts> {
        if known == Some(self.read().version) {
            return None;
        }
        let mut state = self.write();
        let left = std::mem::take(&mut state.left);
        let agreed = |host: &String| Some((host.clone(), state.aliases.of(state.meant(host)?)?));
        Some(Hosts {
            version: state.version,
            members: state.hosts.keys().cloned().collect(),
            left,
            aliases: state.hosts.keys().filter_map(agreed).collect(),
            published: state.aliases.published(),
        })
    }

    /// The current version of the hosts.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// The host names that live members claim and do not get, because they are that of the host `own`, or another daemon
    /// had them first.
    pub fn contested(&self, own: &str) -> Vec<Claim> {
        let own = own.to_lowercase();
        let state = self.read();
        let mut claims = Vec::new();
        for (host, ids) in &state.hosts {
            let is_own = *host == own;
            let (holder, gone_ms) = match state.held.holder(host).filter(|_| !is_own) {
                Some((id, gone_ms)) => (Some(id), gone_ms),
                None => (None, None),
            };
            let losing = ids.iter().filter(|id| is_own || holder.is_some_and(|holder| holder != **id));
            claims.extend(losing.map(|by| Claim { host: host.clone(), by: *by, holder, gone_ms }));
        }
        claims
    }

    /// Whether there are no other hosts.
    pub fn is_alone(&self) -> bool {
        self.read().hosts.is_empty()
    }

    /// A snapshot of all other daemons with their nodes and services.
    pub fn origins(&self) -> Vec<(NodeId, Arc<Origin>)> {
        self.read().origins.iter().map(|(id, origin)| (*id, Arc::clone(origin))).collect()
    }

    /// The same, without those that claim the host name of another one.
    pub fn named_origins(&self) -> Vec<(NodeId, Arc<Origin>)> {
        let state = self.read();
        let named = state.origins.iter().filter(|(id, _)| state.has_its_name(id));
        named.map(|(id, origin)| (*id, Arc::clone(origin))).collect()
    }

    /// A snapshot of another daemon with its nodes and services.
    pub fn origin(&self, id: &NodeId) -> Option<Arc<Origin>> {
        self.read().origins.get(id).map(Arc::clone)
    }

    /// A snapshot of the daemon that has this host name.
    pub fn on_host(&self, host: &str) -> Vec<(NodeId, Arc<Origin>)> {
        let state = self.read();
        let id = state.find_host(&host.to_lowercase());
        id.and_then(|id| Some((id, Arc::clone(state.origins.get(&id)?)))).into_iter().collect()
    }

    /// The members that are relays.
    pub fn relays(&self) -> BTreeSet<NodeId> {
        let is_relay = |origin: &Origin| origin.host().is_some_and(|host| host.relay);
        self.read().origins.iter().filter(|(_, origin)| is_relay(origin)).map(|(id, _)| *id).collect()
    }

    /// The host name of a live member, in lower case.
    pub fn host_of(&self, id: &NodeId) -> Option<String> {
        self.read().origins.get(id)?.host().map(|host| host.host.as_str().to_lowercase())
    }

    /// The addresses at which a live member can be reached, in order of preference.
    pub fn addresses_of(&self, id: &NodeId) -> Vec<SocketAddr> {
        self.read().origins.get(id).map(|origin| origin.addresses.clone()).unwrap_or_default()
    }

    /// The current registration of a name of `origin`.
    pub fn registered(&self, origin: &NodeId, kind: Kind, name: &str) -> Option<Registered> {
        Registered::of(self.read().origins.get(origin)?.find(kind, name)?)
    }

    /// All nodes on `host`, by name.
    pub fn names_on(&self, host: &str) -> BTreeMap<Box<str>, (NodeId, Registered)> {
        let mut names = BTreeMap::new();
        for (id, origin) in self.on_host(host) {
            for ByName(entry) in &origin.names {
                if let Some(registered) = Registered::of(entry) {
                    names.entry(entry.name().into()).or_insert((id, registered));
                }
            }
        }
        names
    }

    /// The daemons of the hosts with this name. A name without a domain means all hosts that it is the first part of,
    /// unless it is the whole name of one; in the order of names. A name with a domain means the host of exactly that
    /// name, or else, unless `exact`, the one that has its first part for its whole name.
    pub fn members_named(&self, host: &str, exact: bool) -> Vec<NodeId> {
        let host = host.to_lowercase();
        let state = self.read();
        if state.hosts.contains_key(&host) {
            return state.meant(&host).into_iter().collect();
        }
        if let Some((short, _)) = host.split_once('.') {
            return if exact { Vec::new() } else { state.meant(short).into_iter().collect() };
        }
        // All long forms of a short name are adjacent in the order of names.
        let from = format!("{host}.");
        let longs = state.hosts.range(from.clone()..).take_while(|(long, _)| long.starts_with(&from));
        longs.filter_map(|(long, _)| state.meant(long)).collect()
    }

    /// The live members that advertise this address and have their names.
    pub fn members_at(&self, address: IpAddr) -> Vec<NodeId> {
        let state = self.read();
        let all = state.members.get(&address.to_canonical()).into_iter().flatten().copied();
        all.filter(|id| state.has_its_name(id)).collect()
    }

    /// The node `name` of `origin`: its host in lower case, its registration and its entry.
    pub fn node_of(&self, origin: &NodeId, name: &str) -> Option<(String, Registered, Arc<Entry>)> {
        let state = self.read();
        let origin = state.origins.get(origin)?;
        let entry = origin.find(Kind::NAME, name)?;
        Some((origin.host_name().to_lowercase(), Registered::of(entry)?, Arc::clone(entry)))
    }

    /// Whether a live member has this address.
    pub fn is_member(&self, address: IpAddr) -> bool {
        self.read().members.contains_key(&address.to_canonical())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Finds a host by its own name, or if there is none, by matching a short name with a long one.
    fn find_host(&self, host: &str) -> Option<NodeId> {
        if self.hosts.contains_key(host) {
            return self.meant(host);
        }
        if let Some((short, _)) = host.split_once('.') {
            return self.meant(short);
        }
        // All long forms of a short name are adjacent in the order of names.
        let from = format!("{host}.");
        let (long, _) = self.hosts.range(from.clone()..).next()?;
        long.starts_with(&from).then(|| self.meant(long)).flatten()
    }

    /// The live daemon that has exactly this name.
    fn meant(&self, host: &str) -> Option<NodeId> {
        let (holder, _) = self.held.holder(host)?;
        self.hosts.get(host)?.contains(&holder).then_some(holder)
    }

    /// Whether a live member has the host name that it claims.
    fn has_its_name(&self, id: &NodeId) -> bool {
        let name = self.origins.get(id).map(|origin| origin.host_name().to_lowercase());
        name.is_some_and(|name| self.meant(&name) == Some(*id))
    }

    /// Gives a name that nobody has to the daemon that has claimed it longest.
    fn settle(&mut self, host: &str) {
        for id in self.hosts.get(host).into_iter().flatten().filter(|id| !self.expelled.contains(id)) {
            self.held.claim(now_ms(), host, *id);
        }
        self.version += 1;
    }

    /// An origin for modification. It is copied only if a reader holds a snapshot of it.
    fn origin(&mut self, id: NodeId) -> &mut Origin {
        Arc::make_mut(self.origins.entry(id).or_default())
    }

    fn change(&mut self, id: NodeId, change: &EntryChange) {
        match (&change.before, &change.after) {
            (_, Some(entry)) => match &**entry {
                Entry::Host(host) => {
                    let name = host.host.as_str().to_lowercase();
                    self.version += 1;
                    // Its own name may have changed, but not that it claimed it before others.
                    let same =
                        self.origins.get(&id).is_some_and(|origin| origin.host_name().to_lowercase() == name);
                    if !same {
                        self.unlist(&id, true);
                        self.hosts.entry(name.clone()).or_default().push(id);
                        self.settle(&name);
                    }
                    if !self.expelled.contains(&id) {
                        self.aliases.publish(now_ms(), id, host.alias);
                    }
                    self.origin(id).host = Some(Arc::clone(entry));
                }
                Entry::Name(_) => drop(self.origin(id).names.replace(ByName(Arc::clone(entry)))),
                Entry::Service(_) => drop(self.origin(id).services.replace(ByName(Arc::clone(entry)))),
            },
            (Some(entry), None) => match &**entry {
                Entry::Host(_) => {
                    self.version += 1;
                    self.unlist(&id, true);
                    self.aliases.gone(now_ms(), id);
                }
                Entry::Name(_) => drop(self.origin(id).names.remove(entry.name())),
                Entry::Service(_) => drop(self.origin(id).services.remove(entry.name())),
            },
            (None, None) => {}
        }
    }

    fn hide(&mut self, id: &NodeId) {
        self.version += 1;
        let host = self.origins.get(id).and_then(|origin| origin.host());
        let is_out = self.expelled.contains(id);
        let left = host.filter(|host| host.leaving || is_out).map(|host| host.host.as_str().to_lowercase());
        self.unlist(id, left.is_some());
        self.aliases.gone(now_ms(), *id);
        self.left.extend(left);
        self.set_addresses(*id, &[]);
        self.origins.remove(id);
    }

    /// Removes an origin from the index of hosts. It keeps its name for a while, unless it has `given_up` the name.
    fn unlist(&mut self, id: &NodeId, given_up: bool) {
        let Some(Entry::Host(host)) =
            self.origins.get_mut(id).and_then(|origin| Arc::make_mut(origin).host.take()).as_deref().cloned()
        else {
            return;
        };
        let name = host.host.as_str().to_lowercase();
        if let Some(all) = self.hosts.get_mut(&name) {
            all.retain(|other| other != id);
            if all.is_empty() {
                self.hosts.remove(&name);
            }
        }
        self.held.gone(now_ms(), &name, *id, given_up);
        if given_up {
            self.settle(&name);
        }
    }

    fn set_addresses(&mut self, id: NodeId, addresses: &[SocketAddr]) {
        let before = std::mem::replace(&mut self.origin(id).addresses, addresses.to_vec());
        for address in before {
            let ip = address.ip().to_canonical();
            if let Some(members) = self.members.get_mut(&ip) {
                members.retain(|member| *member != id);
                if members.is_empty() {
                    self.members.remove(&ip);
                }
            }
        }
        for address in addresses {
            let members = self.members.entry(address.ip().to_canonical()).or_default();
            if !members.contains(&id) {
                members.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
