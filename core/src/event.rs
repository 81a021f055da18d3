//! Cluster changes that are reported to users.

use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::{Entry, NodeId};

use crate::replica::view::{EntryChange, Patch};

/// How a daemon has left the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Deliberately.
    Left,
    /// An administrator has expelled it.
    Expelled,
}

impl Departure {
    /// Its name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Expelled => "expelled",
        }
    }
}

/// A change in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A daemon has joined, or has come back.
    NodeUp,
    /// A daemon could not be reached and has not refuted the suspicion yet.
    NodeSuspect,
    /// A daemon has failed.
    NodeDown,
    /// A daemon has left the cluster deliberately, or was expelled.
    NodeLeft(Departure),
    /// An Erlang node was registered, or its registration has changed.
    NameUp(Arc<Entry>),
    /// An Erlang node is no longer registered, or its host is gone.
    NameDown(Arc<Entry>),
    /// A service was registered, or its registration has changed.
    ServiceUp(Arc<Entry>),
    /// A service is no longer registered, or its host is gone.
    ServiceDown(Arc<Entry>),
}

impl ClusterChange {
    /// The name of the change on the command line.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NodeUp => "node_up",
            Self::NodeSuspect => "node_suspect",
            Self::NodeDown => "node_down",
            Self::NodeLeft(_) => "node_left",
            Self::NameUp(_) => "name_up",
            Self::NameDown(_) => "name_down",
            Self::ServiceUp(_) => "service_up",
            Self::ServiceDown(_) => "service_down",
        }
    }

    /// The reason, of a change that can have different ones.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NodeLeft(departure) => Some(departure.as_str()),
            _ => None,
        }
    }
}

/// A change, and the daemon it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// When this daemon learned of it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The daemon that changed, or that owns the entry.
    pub origin: NodeId,
    /// The host name of that daemon, if known.
    pub host: Option<HostName>,
    /// The change.
    pub change: ClusterChange,
}

/// The changes in a patch that are reported to users.
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
