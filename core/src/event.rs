//! Changes in the cluster that people want to know about.

use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::{Entry, NodeId};

use crate::replica::view::{EntryChange, Patch};

/// A change in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A daemon has joined, or has come back.
    NodeUp,
    /// A daemon could not be reached, and has not refuted that yet.
    NodeSuspect,
    /// A daemon has failed.
    NodeDown,
    /// A daemon has left the cluster as announced.
    NodeLeft,
    /// An Erlang node was registered, or registered with other values.
    NameUp(Arc<Entry>),
    /// An Erlang node can no longer be found.
    NameDown(Arc<Entry>),
    /// A service was registered, or registered with other values.
    ServiceUp(Arc<Entry>),
    /// A service can no longer be found.
    ServiceDown(Arc<Entry>),
}

impl ClusterChange {
    /// Its name on the command line.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NodeUp => "node_up",
            Self::NodeSuspect => "node_suspect",
            Self::NodeDown => "node_down",
            Self::NodeLeft => "node_left",
            Self::NameUp(_) => "name_up",
            Self::NameDown(_) => "name_down",
            Self::ServiceUp(_) => "service_up",
            Self::ServiceDown(_) => "service_down",
        }
    }
}

/// A change, and the daemon it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// When this daemon learned of it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The daemon that changed, or that has the entry.
    pub origin: NodeId,
    /// The name of its host, if known.
    pub host: Option<HostName>,
    /// The change.
    pub change: ClusterChange,
}

/// The changes in a patch that people want to know about.
#[must_use]
pub fn cluster_changes(patch: &Patch) -> Vec<ClusterChange> {
    match patch {
        Patch::Change { changes, .. } => changes.iter().filter_map(of_entry).collect(),
        Patch::Hide { entries, .. } => entries.iter().filter_map(down).collect(),
    }
}

fn of_entry(change: &EntryChange) -> Option<ClusterChange> {
    match (&change.before, &change.after) {
        (_, Some(entry)) => up(entry),
        (Some(entry), None) => down(entry),
        (None, None) => None,
    }
}

fn up(entry: &Arc<Entry>) -> Option<ClusterChange> {
    match **entry {
        Entry::Host(_) => None,
        Entry::Name(_) => Some(ClusterChange::NameUp(Arc::clone(entry))),
        Entry::Service(_) => Some(ClusterChange::ServiceUp(Arc::clone(entry))),
    }
}

fn down(entry: &Arc<Entry>) -> Option<ClusterChange> {
    match **entry {
        Entry::Host(_) => None,
        Entry::Name(_) => Some(ClusterChange::NameDown(Arc::clone(entry))),
        Entry::Service(_) => Some(ClusterChange::ServiceDown(Arc::clone(entry))),
    }
}
