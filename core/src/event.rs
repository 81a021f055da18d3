//! What has happened in the cluster, numbered, so that a reader who was away can go on where it stopped.
//!
//! The log is a bounded window. Numbers start at 1 with every start of the daemon and have no gaps.

use std::collections::VecDeque;
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
    /// Its number: 1 for the first after the daemon's start.
    pub sequence: u64,
    /// When this daemon learned of it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// To which daemon, or at which.
    pub origin: NodeId,
    /// The name of its host, where it is known.
    pub host: Option<HostName>,
    /// What.
    pub what: Happening,
}

/// The answer to "what has happened since".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// How many of those asked for are no longer there.
    pub missed: u64,
    /// Go on from here.
    pub last: u64,
}

/// The window of recent events.
#[derive(Debug)]
pub struct EventLog {
    window: VecDeque<Event>,
    kept: usize,
    last: u64,
}

impl EventLog {
    /// An empty log that will keep so many events.
    #[must_use]
    pub fn keeping(kept: usize) -> Self {
        Self { window: VecDeque::new(), kept, last: 0 }
    }

    /// Adds an event; the event with its number.
    pub fn add(&mut self, at_ms: u64, origin: NodeId, host: Option<HostName>, what: Happening) -> Event {
        self.last += 1;
        let event = Event { sequence: self.last, at_ms, origin, host, what };
        if self.kept > 0 {
            if self.window.len() == self.kept {
                self.window.pop_front();
            }
            self.window.push_back(event.clone());
        }
        event
    }

    /// Up to `limit` events after number `since`.
    #[must_use]
    pub fn since(&self, since: u64, limit: usize) -> Since {
        let first = self.window.front().map_or(self.last, |event| event.sequence - 1);
        let missed = first.saturating_sub(since);
        let events: Vec<_> =
            self.window.iter().filter(|event| event.sequence > since).take(limit).cloned().collect();
        let last = events.last().map_or(self.last.max(since.min(self.last)), |event| event.sequence);
        Since { events, missed, last }
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_where_it_stopped_and_is_told_what_it_missed() {
        const WINDOW: usize = 4_096;
        let mut log = EventLog::keeping(WINDOW);
        assert_eq!(log.since(0, 10), Since { events: vec![], missed: 0, last: 0 });
        let count = u64::try_from(WINDOW).unwrap_or_default() + 3;
        for number in 1..=count {
            assert_eq!(log.add(number, NodeId::MIN, None, Happening::NodeUp).sequence, number);
        }
        let first = log.since(0, 2);
        assert_eq!((first.missed, first.last), (3, 5));
        assert_eq!(first.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [4, 5]);
        let rest = log.since(5, usize::MAX);
        assert_eq!((rest.missed, rest.last, rest.events.len()), (0, count, WINDOW - 2));
        assert_eq!(log.since(count, 1), Since { events: vec![], missed: 0, last: count });
    }

    #[test]
    fn a_log_that_keeps_nothing_still_counts() {
        let mut log = EventLog::keeping(0);
        assert_eq!(log.add(1, NodeId::MIN, None, Happening::NodeUp).sequence, 1);
        assert_eq!(log.add(2, NodeId::MIN, None, Happening::NodeDown).sequence, 2);
        assert_eq!(log.since(0, 10), Since { events: vec![], missed: 2, last: 2 });
    }
}
