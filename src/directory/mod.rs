//! The read model: the nodes and services of this host and of others, from which all lookups are answered.
//!
//! [`Directory::find`](pmd_epmd::server::Directory::find) answers EPMD lookups, and [`Directory::matches`] those of the
//! API. Results are plain values, which are encoded only where they leave the daemon. [`local`] is this host,
//! [`cluster`] the others.

pub mod changes;
pub mod cluster;
pub mod dial_question;
pub mod events;
pub mod held_names;
pub mod hosts;
pub mod local;
pub mod meaning;
pub mod registered;
pub mod services;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pmd_epmd::server::{Asker, NotFound};
use pmd_protocol::epmd::{Alive2, encode};
use pmd_protocol::peer::{Entry, Kind, NodeId};

use crate::config::types::EpmdAccess;
use cluster::{ClusterDirectory, Origin, Registered, alive2};
use dial_question::{DialQuestion, NO_SUCH_NODE, THIS_HOST};
use hosts::same_host;
use local::Local;
use meaning::{Domains, Meaning};

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

/// A result of a lookup.
#[derive(Debug, Clone)]
pub struct Match {
    /// The daemon that has it; `None` for this one.
    pub origin: Option<NodeId>,
    /// The name of its host.
    pub host: String,
    /// The node or service.
    pub entry: Arc<Entry>,
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

/// This host and the others together.
#[derive(Debug)]
pub struct Directory {
    local: Arc<Local>,
    others: Option<Others>,
    access: EpmdAccess,
}

impl Directory {
    /// Creates a directory of this host and, in a cluster, of the others. `access` says which other hosts may look up
    /// names.
    #[must_use]
    pub fn new(local: Arc<Local>, others: Option<Others>, access: EpmdAccess) -> Directory {
        Directory { local, others, access }
    }

    /// This host.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// The node `name` on another host, of those that are meant.
    pub fn node_elsewhere(&self, name: &str, meaning: &Meaning) -> Option<Node> {
        self.others.as_ref()?.node(name, meaning)
    }

    /// All nodes and services with this name, on all hosts or on `host`, in no particular order. `None` if the host is
    /// unknown.
    pub fn matches(&self, name: &str, host: Option<&str>) -> Option<Vec<Match>> {
        let kinds = [Kind::NAME, Kind::SERVICE];
        let found =
            |origin: &Origin| kinds.map(|kind| origin.find(kind, name).cloned()).into_iter().flatten();
        let own = || self.local.find(name).into_iter();
        self.collect(host, own, |origin| found(origin).collect())
    }

    /// All nodes and services, on all hosts or on `host`. `None` if the host is unknown.
    pub fn all(&self, host: Option<&str>) -> Option<Vec<Match>> {
        self.collect(host, || self.local.entries().into_iter(), |origin| origin.entries().cloned().collect())
    }

    fn collect<I: Iterator<Item = Arc<Entry>>>(
        &self,
        host: Option<&str>,
        own: impl FnOnce() -> I,
        of: impl Fn(&Origin) -> Vec<Arc<Entry>>,
    ) -> Option<Vec<Match>> {
        let meaning = host.map(|host| self.meaning(host, Domains::OrNone));
        if meaning.as_ref().is_some_and(Meaning::is_unknown) {
            return None;
        }
        let mut matches = Vec::new();
        if meaning.as_ref().is_none_or(|meaning| meaning.this_host) {
            let host = self.local.host();
            matches.extend(own().map(|entry| Match { origin: None, host: host.to_owned(), entry }));
        }
        let cluster = self.others.as_ref().map(|others| &others.cluster);
        let others = match (cluster, &meaning) {
            (None, _) => Vec::new(),
            (Some(cluster), None) => cluster.named_origins(),
            (Some(cluster), Some(meaning)) => {
                meaning.members.iter().filter_map(|id| Some((*id, cluster.origin(id)?))).collect()
            }
        };
        for (id, origin) in others {
            let at = origin.host_name();
            let entries = of(&origin).into_iter();
            matches.extend(entries.map(|entry| Match { origin: Some(id), host: at.to_owned(), entry }));
        }
        Some(matches)
    }

    /// The other hosts and the alias to which this request was sent, if it was sent to one.
    fn alias_asked(&self, asker: &Asker<'_>) -> Option<(&Others, IpAddr)> {
        let others = self.others.as_ref()?;
        // Only programs on this host can connect to aliases, so the system call for the local address is saved for
        // others.
        if !others.entrances.any() || !asker.is_loopback() {
            return None;
        }
        let asked = asker.own_address()?.to_canonical();
        others.entrances.is_alias(asked).then_some((others, asked))
    }

    /// Looks up a full name, `name@host`, which stock epmd does not support: the node `name` on this host or another.
    fn find_at_host(&self, asker: &Asker<'_>, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        let Some(others) = &self.others else { return false };
        let Some((name, host)) = name.rsplit_once('@') else { return false };
        let meaning = self.meaning(host, Domains::OrNone);
        if meaning.this_host && self.local.names().find(name, answer) {
            return true;
        }
        let Some(Node { host, entry, target, registered }) = others.node(name, &meaning) else {
            return false;
        };
        if !others.entrances.tunnels_to(&host) {
            let Some(found) = alive2(&entry) else { return false };
            answer(&found);
            return true;
        }
        // An entry on any other address would be open to the network.
        let Some(asked) = asker.own_address().map(|asked| asked.to_canonical()) else { return false };
        if !asked.is_loopback() {
            return false;
        }
        let port = others.entrances.entry(asked, target, registered);
        let Some((port, found)) = port.zip(alive2(&entry)) else { return false };
        answer(&Alive2 { port, ..found });
        true
    }

    /// Says where a node on this host connects to.
    fn find_to_dial(
        &self,
        others: &Others,
        question: &DialQuestion<'_>,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> Result<(), NotFound> {
        let meaning = self.meaning(question.host, Domains::Exact);
        if meaning.this_host {
            return Err(THIS_HOST);
        }
        let Some(Node { entry, target, registered, .. }) = others.node(question.name, &meaning) else {
            // Not everything at an address of a member needs to be the member.
            return Err(if meaning.is_unknown() || meaning.address.is_some() {
                NotFound::STOCK
            } else {
                NO_SUCH_NODE
            });
        };
        let address = others.entrances.to_dial(target, registered).ok_or(NotFound::STOCK)?;
        let extra = question.family.extra(address.ip()).ok_or(NotFound::STOCK)?;
        let found = alive2(&entry).ok_or(NotFound::STOCK)?;
        answer(&Alive2 { port: address.port(), name: question.name, extra: &extra, ..found });
        Ok(())
    }
}

impl Others {
    /// The node `name` on the host that is meant. If several hosts are meant, that is the first of them that has such a node;
    /// if all that is known of them is an address, they must not be several.
    fn node(&self, name: &str, meaning: &Meaning) -> Option<Node> {
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

impl pmd_epmd::server::Directory for Directory {
    fn find(
        &self,
        asker: &Asker<'_>,
        name: &str,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> Result<(), NotFound> {
        if let Some((others, question)) = self.others.as_ref().zip(DialQuestion::parse(name))
            && asker.is_loopback()
        {
            return self.find_to_dial(others, &question, answer);
        }
        let found = match self.alias_asked(asker) {
            Some((others, alias)) => others.find_at_alias(alias, name, answer),
            None => self.local.names().find(name, answer) || self.find_at_host(asker, name, answer),
        };
        if found { Ok(()) } else { Err(NotFound::STOCK) }
    }

    fn names(&self, asker: &Asker<'_>) -> Arc<[u8]> {
        match self.alias_asked(asker) {
            Some((others, alias)) => {
                let mut answer = encode::names_header(self.local.names().configured_port()).to_vec();
                answer.extend_from_slice(&others.names_at_alias(alias));
                answer.into()
            }
            None => self.local.names().render_names(),
        }
    }

    fn is_elsewhere(&self, asker: &Asker<'_>) -> bool {
        self.alias_asked(asker).is_some()
    }

    fn may_ask(&self, peer: Option<SocketAddr>) -> bool {
        match (self.access, &self.others) {
            (EpmdAccess::Open, _) | (_, None) => true,
            (EpmdAccess::Members, Some(others)) => {
                peer.is_some_and(|peer| others.cluster.is_member(peer.ip()))
            }
            (EpmdAccess::Local, Some(_)) => false,
        }
    }
}
