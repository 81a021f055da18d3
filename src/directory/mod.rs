//! The read model: the nodes and services of this host and of others, from which all lookups are answered.
//!
//! [`Directory::find`](pmd_epmd::server::Directory::find) answers EPMD lookups, and [`Directory::matches`] those of the
//! API. Results are plain values, which are encoded only where they leave the daemon. [`local`] is this host,
//! [`cluster`] the others. What a live member may have registered a moment ago, it is [asked](others::Others::node) itself.

pub mod agreed_aliases;
pub mod changes;
pub mod cluster;
pub mod dial_question;
pub mod events;
pub mod held_names;
pub mod hosts;
pub mod local;
mod lookup;
pub mod meaning;
mod origin;
pub mod others;
pub mod registered;
pub mod services;

use std::fmt::Debug;
use std::sync::Arc;

use pmd_protocol::peer::{Entry, Kind, NodeId};

use crate::config::types::EpmdAccess;
use cluster::Origin;
use local::Local;
use meaning::{Domains, Meaning};
pub use others::{Answers, Asking, Entrances, Inquirer, Node, Others, Target};

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

/// This host and the others together. Cheap to clone.
#[derive(Debug, Clone)]
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
    pub async fn node_elsewhere(&self, name: &str, meaning: &Meaning) -> Option<Node> {
        self.others.as_ref()?.node(name, meaning).await
    }

    /// What the host in a node's name means.
    #[must_use]
    pub fn meaning(&self, host: &str, domains: Domains) -> Meaning {
        Meaning::of(host, domains, self.local.host(), self.others.as_ref())
    }

    /// All nodes and services with this name, on all hosts or on `host`, in no particular order. `None` if the host is
    /// unknown.
    pub async fn matches(&self, name: &str, host: Option<&str>) -> Option<Vec<Match>> {
        let found = self.known_matches(name, host)?;
        let Some((others, host)) = self.others.as_ref().zip(host).filter(|_| found.is_empty()) else {
            return Some(found);
        };
        let answers = others.ask(name, &self.meaning(host, Domains::OrNone)).await;
        // They may have arrived meanwhile.
        let arrived = self.known_matches(name, Some(host)).filter(|arrived| !arrived.is_empty());
        if arrived.is_some() {
            return arrived;
        }
        let found = answers.into_iter().flat_map(|(id, answers)| {
            let host = others.cluster.origin(&id).map(|origin| origin.host_name().to_owned());
            let entries: Vec<_> = answers.iter().map(Arc::clone).collect();
            let found = move |entry| Some(Match { origin: Some(id), host: host.clone()?, entry });
            entries.into_iter().filter_map(found)
        });
        Some(found.collect())
    }

    fn known_matches(&self, name: &str, host: Option<&str>) -> Option<Vec<Match>> {
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
}
