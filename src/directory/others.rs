//! The other hosts of the cluster, and the addresses on this host that lead to them.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use pmd_protocol::epmd::encode;
use pmd_protocol::peer::{Entry, Kind, NodeId};

use super::cluster::{ClusterDirectory, Registered};
use super::dial_question::Family;
use super::meaning::{Meaning, Members};

/// The number of members that are asked about one name, if its host may be several.
const MAX_ASKED: usize = 4;

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

    /// Whether this address is in the alias range, and not this host's own alias.
    fn is_alias(&self, address: IpAddr) -> bool;

    /// The host of an alias, in lower case.
    fn host_behind(&self, alias: IpAddr) -> Option<String>;

    /// Whether this address is one of this host's own.
    fn is_own(&self, address: IpAddr) -> bool;

    /// Whether this address is in the range of the addresses of nodes.
    fn is_node(&self, address: IpAddr) -> bool;

    /// Whether a host is reached through tunnels, rather than directly.
    fn tunnels_to(&self, host: &str) -> bool;

    /// Where a node on this host that dials addresses of this `family` connects to in order to reach `target`: an address
    /// that leads into a tunnel, or that of the node itself if it needs none. `None` if there is no room for it.
    fn to_dial(&self, target: Target, registered: Registered, family: Family) -> Option<SocketAddr>;

    /// The port on `address` that leads to `target`, which is opened if necessary. `None` if there is no room for it.
    fn entry(&self, address: IpAddr, target: Target, registered: Registered) -> Option<u16>;
}

/// What a member has registered under one name: a node, a service, both or nothing.
pub type Answers = Arc<[Arc<Entry>]>;

/// Waits for the answer of a member, no longer than a moment.
pub type Asking = Pin<Box<dyn Future<Output = Answers> + Send>>;

/// Asks other daemons what is registered on their hosts. Each speaks only for its own host.
pub trait Inquirer: Debug + Send + Sync {
    /// Whether `member` may be asked for this name, or has just answered. Called on the hot path of lookups that find
    /// nothing.
    fn may_ask(&self, member: &NodeId, name: &str) -> bool;

    /// Asks `member`; nothing if it may not be asked or does not answer.
    fn ask(&self, member: NodeId, name: &str) -> Asking;

    /// Runs the rest of a lookup, outside the threads of the EPMD port.
    fn spawn(&self, lookup: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// The other hosts.
#[derive(Debug, Clone)]
pub struct Others {
    /// Their nodes and services.
    pub cluster: Arc<ClusterDirectory>,
    /// Their aliases on this host.
    pub entrances: Arc<dyn Entrances>,
    /// Asks their daemons.
    pub inquirer: Arc<dyn Inquirer>,
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
    ///
    /// What a member has registered a moment ago may still be on its way here. So if nothing is known, the members that are
    /// meant are asked. All lookups on other hosts come here.
    pub async fn node(&self, name: &str, meaning: &Meaning) -> Option<Node> {
        if let Some(node) = self.known_node(name, meaning) {
            return Some(node);
        }
        let answers = self.ask(name, meaning).await;
        let on = |(origin, answers): (NodeId, Answers)| {
            let entry = answers.iter().find(|entry| entry.kind() == Kind::NAME)?;
            let host = self.cluster.host_of(&origin)?;
            Some(Node::new(origin, host, name, meaning, Registered::of(entry)?, Arc::clone(entry)))
        };
        // The registration may have arrived meanwhile.
        self.known_node(name, meaning).or_else(|| only(answers.into_iter().filter_map(on), meaning))
    }

    /// The same, of what is known already.
    pub(super) fn known_node(&self, name: &str, meaning: &Meaning) -> Option<Node> {
        let on = |origin: &NodeId| {
            let (host, registered, entry) = self.cluster.node_of(origin, name)?;
            Some(Node::new(*origin, host, name, meaning, registered, entry))
        };
        only(meaning.members.iter().filter_map(on), meaning)
    }

    /// Whether [`ask`](Self::ask) would ask any daemon, or has the answer of one at hand.
    pub(super) fn may_ask(&self, name: &str, meaning: &Meaning) -> bool {
        self.asked(meaning).any(|member| self.inquirer.may_ask(member, name))
    }

    /// Asks the members that are meant what they have registered under this name; without those that do not answer.
    pub(super) async fn ask(&self, name: &str, meaning: &Meaning) -> Vec<(NodeId, Answers)> {
        let asking = self.asked(meaning).map(|member| {
            let answers = self.inquirer.ask(*member, name);
            async { (*member, answers.await) }
        });
        join_all(asking).await
    }

    fn asked<'a>(&self, meaning: &'a Meaning) -> impl Iterator<Item = &'a NodeId> {
        meaning.members.iter().take(MAX_ASKED)
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

impl Node {
    fn new(
        origin: NodeId,
        host: String,
        name: &str,
        meaning: &Meaning,
        registered: Registered,
        entry: Arc<Entry>,
    ) -> Node {
        let target = Target {
            origin,
            host: host.as_str().into(),
            kind: Kind::NAME,
            name: name.into(),
            pinned: meaning.address,
        };
        Node { host, entry, target, registered }
    }
}

/// The first node, unless several were found at an address.
fn only(mut found: impl Iterator<Item = Node>, meaning: &Meaning) -> Option<Node> {
    let first = found.next()?;
    let is_ambiguous = meaning.address.is_some() && found.next().is_some();
    (!is_ambiguous).then_some(first)
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

    fn is_alias(&self, address: IpAddr) -> bool {
        self.entrances.is_alias(address)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.entrances.is_node(address)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.entrances.is_own(address)
    }
}
