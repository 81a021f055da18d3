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
mod origin;
pub mod others;
pub mod registered;
pub mod services;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pmd_epmd::server::{Asker, NotFound};
use pmd_protocol::epmd::{Alive2, encode};
use pmd_protocol::peer::{Entry, Kind, NodeId};

use crate::config::types::EpmdAccess;
use cluster::{Origin, alive2};
use dial_question::{DialQuestion, NO_SUCH_NODE, THIS_HOST};
use local::Local;
use meaning::{Domains, Meaning};
pub use others::{Entrances, Node, Others, Target};

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

    /// What the host in a node's name means.
    #[must_use]
    pub fn meaning(&self, host: &str, domains: Domains) -> Meaning {
        Meaning::of(host, domains, self.local.host(), self.others.as_ref())
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
