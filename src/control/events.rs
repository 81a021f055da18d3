//! The event stream, as server-sent events.
//!
//! A stream begins with `hello`, which identifies the start of the daemon that the event numbers belong to. A reader
//! that reconnects sends the last number it has read (`since`, or the header `Last-Event-ID`) and that start (`boot`);
//! a `gap` reports events that are no longer available. The daemon keeps no queue for slow readers: they all read from
//! the log.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;

use super::{api, json};
use crate::base::shutdown::Shutdown;
use crate::directory::events::{Event, EventKind, EventLog};

/// All event kinds.
pub const KINDS: [EventKind; 8] = [
    EventKind::NameUp,
    EventKind::NameDown,
    EventKind::ServiceUp,
    EventKind::ServiceDown,
    EventKind::NodeUp,
    EventKind::NodeSuspect,
    EventKind::NodeDown,
    EventKind::NodeLeft,
];
/// Time without an event after which a reader is sent a comment to show that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events read from the log at once: bounds the memory for a slow reader.
const BATCH: usize = 256;

/// The parameters of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The number of the last event that the reader knows; without it, only new events are sent.
    pub since: Option<u64>,
    /// The start of the daemon that the number belongs to, if the reader knows it.
    pub boot: Option<String>,
    /// The kinds to send; empty means all.
    pub kinds: Vec<EventKind>,
}

/// The source of the events of a stream.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// The log.
    pub log: Arc<EventLog>,
    /// Distinguishes this start of the daemon from any other.
    pub boot_id: String,
    /// The name of this host, for local events.
    pub host: String,
    /// The id of this daemon, in a cluster.
    pub node_id: Option<String>,
    /// Ends the stream when the daemon shuts down.
    pub shutdown: Shutdown,
}

/// The stream for a reader. It ends when the daemon does.
///
/// axum's keep-alive always sends the same text. pmd's carries the current number, so that a reader of few kinds does
/// not rescan all other events when it reconnects.
pub fn stream(
    source: EventSource,
    wanted: Wanted,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    stream::unfold(Reading::new(source, wanted), async |mut reading| {
        let event = reading.next().await?;
        Some((Ok(event), reading))
    })
}

/// One reader's position in the event log.
#[derive(Debug)]
struct Reading {
    source: EventSource,
    newest: watch::Receiver<u64>,
    /// The number of the last event that was queued or filtered out.
    cursor: u64,
    kinds: Vec<EventKind>,
    /// Read, but not yet sent.
    ready: VecDeque<sse::Event>,
}

impl Reading {
    fn new(source: EventSource, wanted: Wanted) -> Reading {
        let newest = source.log.watch();
        let last = source.log.last();
        let boot_id = source.boot_id.clone();
        let restarted = wanted.boot.is_some_and(|boot| boot != boot_id)
            // Numbers only grow, so a larger one belongs to an earlier start.
            || wanted.since.is_some_and(|since| since > last);
        let mut ready =
            VecDeque::from([with_data(sse::Event::default().event("hello"), &api::Hello { boot_id, last })]);
        if restarted {
            ready.push_back(gap(api::GapReason::Restarted, None));
        }
        let cursor = if restarted { 0 } else { wanted.since.unwrap_or(last) };
        Reading { newest, cursor, kinds: wanted.kinds, ready, source }
    }

    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Before the log is read, so that an event in between wakes the reader again.
            self.newest.borrow_and_update();
            if self.read_log() {
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    return Some(sse::Event::default().comment("keep-alive").id(self.cursor.to_string()));
                }
                _ = self.source.shutdown.wait() => return None,
            }
        }
    }

    /// Reads the next batch; returns false if there was nothing new.
    fn read_log(&mut self) -> bool {
        let since = self.source.log.since(self.cursor, BATCH);
        self.cursor = since.last;
        if since.missed > 0 {
            self.ready.push_back(gap(api::GapReason::TooOld, Some(since.missed)));
        }
        let wanted = |event: &&Event| self.kinds.is_empty() || self.kinds.contains(&event.kind);
        self.ready.extend(since.events.iter().filter(wanted).map(|event| {
            let head = sse::Event::default().id(event.seq.to_string()).event(event.kind.as_str());
            with_data(head, &on_the_wire(event, &self.source))
        }));
        since.missed > 0 || !since.events.is_empty()
    }
}

fn gap(reason: api::GapReason, missed: Option<u64>) -> sse::Event {
    with_data(sse::Event::default().event("gap"), &api::Gap { reason, missed })
}

fn with_data(event: sse::Event, data: &impl Serialize) -> sse::Event {
    // Plain data always has a JSON form.
    event.json_data(data).unwrap_or_default()
}

fn on_the_wire(event: &Event, source: &EventSource) -> api::Event {
    let (host, node_id) = match &event.origin {
        Some(origin) => (origin.host.to_string(), Some(origin.id.to_string())),
        None => (source.host.clone(), source.node_id.clone()),
    };
    api::Event {
        seq: event.seq,
        at: json::timestamp(event.at_ms),
        kind: event.kind.as_str().to_owned(),
        name: event.name.to_string(),
        port: event.port,
        host,
        node_id,
        reason: event.reason.map(str::to_owned),
    }
}
