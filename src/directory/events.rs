//! The event log: numbered events, so that a disconnected reader can resume where it stopped.
//!
//! The log is a bounded window: a reader that asks for older events is told how many it missed. Numbers start at 1 when
//! the daemon starts; the boot id changes with each start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use pmd_protocol::peer::NodeId;
use serde::Serialize;
use tokio::sync::watch;

/// Number of events in the window: enough for a reader to reconnect after a mass restart of 1,000 nodes, and under 1
/// MB.
pub const WINDOW: usize = 4096;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An Erlang node registered.
    NameUp,
    /// An Erlang node's registration ended.
    NameDown,
    /// A service registered.
    ServiceUp,
    /// A service's registration ended.
    ServiceDown,
    /// A daemon joined the cluster or returned to it.
    NodeUp,
    /// A daemon is suspected to have failed, and has not refuted it yet.
    NodeSuspect,
    /// A daemon failed.
    NodeDown,
    /// A daemon left the cluster, or was expelled.
    NodeLeft,
}

impl EventKind {
    /// The name in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::NameUp => "name_up",
            EventKind::NameDown => "name_down",
            EventKind::ServiceUp => "service_up",
            EventKind::ServiceDown => "service_down",
            EventKind::NodeUp => "node_up",
            EventKind::NodeSuspect => "node_suspect",
            EventKind::NodeDown => "node_down",
            EventKind::NodeLeft => "node_left",
        }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the event, starting at 1 without gaps.
    pub seq: u64,
    /// The time of the event, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The kind of the event.
    pub kind: EventKind,
    /// The name of the Erlang node or service, or for a daemon, the name of its host.
    pub name: Arc<str>,
    /// The port of the Erlang node or service.
    pub port: Option<u16>,
    /// The reason, if there can be different ones.
    pub reason: Option<&'static str>,
    /// The daemon where it happened; `None` for this one.
    pub origin: Option<EventOrigin>,
}

/// Another daemon of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOrigin {
    /// Its id.
    pub id: NodeId,
    /// The name of its host; empty if it is not known.
    pub host: Arc<str>,
}

/// The events since a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// How many of the requested events are no longer in the window.
    pub missed: u64,
    /// The number to pass to the next call.
    pub last: u64,
}

/// The window of recent events.
#[derive(Debug)]
pub struct EventLog {
    window: Mutex<Window>,
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Window {
    events: VecDeque<Event>,
    /// The number of the latest event.
    last: u64,
}

impl EventLog {
    /// An empty log.
    pub fn new() -> EventLog {
        EventLog { window: Mutex::default(), news: watch::Sender::new(0) }
    }

    /// Adds an event about an Erlang node or service of this host.
    pub fn publish(
        &self,
        at_ms: u64,
        kind: EventKind,
        name: Arc<str>,
        port: u16,
        reason: Option<&'static str>,
    ) {
        self.add(Event { seq: 0, at_ms, kind, name, port: Some(port), reason, origin: None });
    }

    /// Adds an event from elsewhere in the cluster.
    pub fn publish_remote(
        &self,
        at_ms: u64,
        kind: EventKind,
        name: Arc<str>,
        port: Option<u16>,
        reason: Option<&'static str>,
        origin: EventOrigin,
    ) {
        self.add(Event { seq: 0, at_ms, kind, name, port, reason, origin: Some(origin) });
    }

    /// Numbers an event and adds it.
    fn add(&self, mut event: Event) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = window.last + 1;
        window.last = seq;
        if window.events.len() == WINDOW {
            window.events.pop_front();
        }
        event.seq = seq;
        window.events.push_back(event);
        // Notifying costs time even without receivers, and every registration gets here.
        if self.news.receiver_count() > 0 {
            self.news.send_replace(seq);
        }
    }

    /// The number of the latest event, or 0 if there are none.
    pub fn last(&self) -> u64 {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// At most `limit` events with a number above `since`.
    ///
    /// A number above the latest one can only come from an earlier start of the daemon, so all events count as new.
    pub fn since(&self, since: u64, limit: usize) -> Since {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = window.last;
        let since = if since > newest { 0 } else { since };
        let oldest = window.events.front().map_or(newest + 1, |event| event.seq);
        let missed = oldest.saturating_sub(since + 1);
        let skip = usize::try_from((since + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events: Vec<_> = window.events.iter().skip(skip).take(limit).cloned().collect();
        let last = events.last().map_or(newest, |event| event.seq);
        Since { events, missed, last }
    }

    /// A receiver that is notified of every event from now on. To miss none, read the log after this call.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

impl Default for EventLog {
    fn default() -> Self {
        EventLog::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: usize) -> EventLog {
        let log = EventLog::new();
        for _ in 0..events {
            log.publish(0, EventKind::NameUp, "a".into(), 1, None);
        }
        log
    }

    #[test]
    fn a_reader_resumes_where_it_stopped() {
        let log = log(5);
        let first = log.since(0, 3);
        assert_eq!((first.events.len(), first.missed, first.last), (3, 0, 3));
        let rest = log.since(first.last, 3);
        assert_eq!((rest.events.len(), rest.missed, rest.last), (2, 0, 5));
        assert!(log.since(rest.last, 3).events.is_empty());
    }

    #[test]
    fn a_late_reader_is_told_what_it_missed() {
        let log = log(WINDOW + 10);
        let since = log.since(0, 1);
        assert_eq!((since.missed, since.events[0].seq), (10, 11));
    }

    #[test]
    fn a_number_from_an_earlier_start_returns_all_events() {
        assert_eq!(log(2).since(1000, 10).events.len(), 2);
    }
}
