//! The other hosts of the cluster, and the addresses on this host that lead to them.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pmd_protocol::epmd::{Alive2, encode};
use pmd_protocol::peer::{Entry, Kind, NodeId};

use super::cluster::{ClusterDirectory, Registered, alive2};
use super::hosts::same_host;
use super::meaning::{Meaning, Members};

/// A node or service that is registered on another host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The daemon of that host, according to the registry.
    pub origin: NodeId,
    /// The host that was asked for, in lower case. The daemon has to prove this name before it gets a tunnel.
    pub host: Box<str>,
    /// Whether it is an Erlang node or a service.
    pub kind: Kind,
    /// Its name.
    pub name: Box<str>,
    /// The only address at which the daemon may be reached, if its host was given by that address. What other addresses a
    /// daemon says it has proves nothing.
    pub pinned: Option<IpAddr>,
}

/// The aliases of other hosts on this host, and the entries (listening ports) on them.
pub trait Entrances: Debug + Send + Sync {
    /// Whether there are any aliases. Called on the hot path.
    fn any(&self) -> bool;

    /// Whether this address is in the alias range.
    fn is_alias(&self, address: IpAddr) -> bool;

    /// The host of an alias, in lower case.
    fn host_behind(&self, alias: IpAddr) -> Option<String>;

    /// Whether this address is one of this host's own.
    fn is_own(&self, address: IpAddr) -> bool;

    /// Whether this address is in the range of the addresses of nodes.
    fn is_node(&self, address: IpAddr) -> bool;

    /// Whether a host is reached through tunnels, rather than directly.
    fn tunnels_to(&self, host: &str) -> bool;

    /// Where a node on this host connects to in order to reach `target`. `None` if there is no room for it, or if pmd leaves
    /// the host to its address.
    fn to_dial(&self, target: Target, registered: Registered) -> Option<SocketAddr>;

    /// The port on `address` that leads to `target`, which is opened if necessary. `None` if there is no room for it.
    fn entry(&self, address: IpAddr, target: Target, registered: Registered) -> Option<u16>;
}

/// The other hosts.
#[derive(Debug)]
pub struct Others {
    /// Their nodes and services.
    pub cluster: Arc<ClusterDirectory>,
    /// Their aliases on this host.
    pub entrances: Arc<dyn Entrances>,
}

/// A node on another host.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its host, in lower case.
    pub host: String,
    /// What its daemon says about it.
    pub entry: Arc<Entry>,
    /// What a tunnel to it is opened to.
    pub target: Target,
    /// Its registration.
    pub registered: Registered,
}

impl Others {
    /// The node `name` on the host that is meant. If several hosts are meant, that is the first of them that has such a node;
    /// if all that is known of them is an address, they must not be several.
    pub(super) fn node(&self, name: &str, meaning: &Meaning) -> Option<Node> {
        let on = |origin: &NodeId| {
            let (host, registered, entry) = self.cluster.node_of(origin, name)?;
            let target = Target {
                origin: *origin,
                host: host.as_str().into(),
                kind: Kind::NAME,
                name: name.into(),
                pinned: meaning.address,
            };
            Some(Node { host, entry, target, registered })
        };
        let mut found = meaning.members.iter().filter_map(on);
        let first = found.next()?;
        let is_ambiguous = meaning.address.is_some() && found.next().is_some();
        (!is_ambiguous).then_some(first)
    }

    /// Passes the node `name` on `host` to `answer`, with a port on `address` that leads there.
    fn find_with_entry(
        &self,
        address: IpAddr,
        name: &str,
        host: &str,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> bool {
        let Some((origin, registered, entry)) = self.cluster.find(name, host) else { return false };
        let target = Target { origin, host: host.into(), kind: Kind::NAME, name: name.into(), pinned: None };
        let port = self.entrances.entry(address, target, registered);
        let Some((port, found)) = port.zip(alive2(&entry)) else { return false };
        answer(&Alive2 { port, ..found });
        true
    }

    /// Looks up the node `name` on the host of `alias`, and passes it to `answer`.
    pub fn find_at_alias(&self, alias: IpAddr, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        let Some(host) = self.entrances.host_behind(alias) else { return false };
        // The name may be a full one.
        let name = match name.rsplit_once('@') {
            Some((name, asked)) if same_host(asked, &host) => name,
            _ => name,
        };
        self.find_with_entry(alias, name, &host, answer)
    }

    /// The lines of the answer to NAMES_REQ at an alias. The ports are those on the other host: entries are opened only
    /// by lookups of single nodes.
    #[must_use]
    pub fn names_at_alias(&self, alias: IpAddr) -> Vec<u8> {
        let mut answer = Vec::new();
        let host = self.entrances.host_behind(alias);
        let names = host.map(|host| self.cluster.names_on(&host)).unwrap_or_default();
        for (name, (_, registered)) in names {
            encode::names_line(&name, registered.port, &mut answer);
        }
        answer
    }
}

impl Members for Others {
    fn named(&self, host: &str, exact: bool) -> Vec<NodeId> {
        self.cluster.members_named(host, exact)
    }

    fn at(&self, address: IpAddr) -> Vec<NodeId> {
        self.cluster.members_at(address)
    }

    fn name_of(&self, id: &NodeId) -> Option<String> {
        self.cluster.host_of(id)
    }

    fn host_behind(&self, alias: IpAddr) -> Option<String> {
        self.entrances.host_behind(alias)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.entrances.is_node(address)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.entrances.is_own(address)
    }
}
