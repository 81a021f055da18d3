//! What has happened in the cluster.

use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::{Entry, NodeId};

use crate::replica::view::{Patch, Shift};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A daemon has joined, or has come back.
    NodeUp,
    /// A daemon could not be reached, and has not objected yet.
    NodeSuspect,
    /// A daemon is gone.
    NodeDown,
    /// A daemon has left after saying so.
    NodeLeft,
    /// An Erlang node can be looked up, or with other values than before.
    NameUp(Arc<Entry>),
    /// An Erlang node cannot be looked up any more.
    NameDown(Arc<Entry>),
    /// A service can be looked up, or with other values than before.
    ServiceUp(Arc<Entry>),
    /// A service cannot be looked up any more.
    ServiceDown(Arc<Entry>),
}

impl Happening {
    /// The name it has on the command line.
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

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When this daemon learned of it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// To which daemon, or at which.
    pub origin: NodeId,
    /// The name of its host, where it is known.
    pub host: Option<HostName>,
    /// What.
    pub what: Happening,
}

/// What a patch of the directory means to people.
#[must_use]
pub fn happenings(patch: &Patch) -> Vec<Happening> {
    match patch {
        Patch::Change { shifts, .. } => shifts.iter().filter_map(of_shift).collect(),
        Patch::Hide { entries, .. } => entries.iter().filter_map(gone).collect(),
    }
}

fn of_shift(shift: &Shift) -> Option<Happening> {
    match (&shift.before, &shift.after) {
        (_, Some(now)) => come(now),
        (Some(before), None) => gone(before),
        (None, None) => None,
    }
}

fn come(entry: &Arc<Entry>) -> Option<Happening> {
    match **entry {
        Entry::Host(_) => None,
        Entry::Name(_) => Some(Happening::NameUp(Arc::clone(entry))),
        Entry::Service(_) => Some(Happening::ServiceUp(Arc::clone(entry))),
    }
}

fn gone(entry: &Arc<Entry>) -> Option<Happening> {
    match **entry {
        Entry::Host(_) => None,
        Entry::Name(_) => Some(Happening::NameDown(Arc::clone(entry))),
        Entry::Service(_) => Some(Happening::ServiceDown(Arc::clone(entry))),
    }
}
