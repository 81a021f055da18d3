//! The event stream, as server-sent events.
//!
//! A stream begins with `hello`, which names the start of the daemon that the numbers belong to. A reader that reconnects sends the
//! last number it has read (`since`, or the header `Last-Event-ID`) and that start (`boot`); a `gap` reports what it has missed
//! for good. The daemon keeps no queue for a slow reader: events stay in the log for a while, and are read from there.

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

/// Every kind of event.
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
/// Time without an event after which a reader gets a comment, which proves that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that are read from the log at once: bounds what the daemon holds for a slow reader.
const BATCH: usize = 256;

/// What a reader asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The number of the last event that the reader knows; without it, only new events are sent.
    pub since: Option<u64>,
    /// The start of the daemon that the number belongs to, if the reader knows it.
    pub boot: Option<String>,
    /// The kinds; none means all.
    pub kinds: Vec<EventKind>,
}

/// Where the events of a stream come from.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// The log.
    pub log: Arc<EventLog>,
    /// Distinguishes this start of the daemon from any other.
    pub boot_id: String,
    /// The name of this host, for events that happened here.
    pub host: String,
    /// The id of this daemon, in a cluster.
    pub node_id: Option<String>,
    /// Ends the stream with the daemon.
    pub shutdown: Shutdown,
}

/// The stream for a reader. It ends when the daemon does.
///
/// axum's own keep-alive always sends the same text; pmd's tells how far the stream is, so a reader of few kinds does not have to
/// be sent through everything else again when it reconnects.
pub fn stream(
    source: EventSource,
    wanted: Wanted,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    stream::unfold(Reading::new(source, wanted), async |mut reading| {
        let event = reading.next().await?;
        Some((Ok(event), reading))
    })
}

/// The log of events, as one reader reads it.
#[derive(Debug)]
struct Reading {
    source: EventSource,
    newest: watch::Receiver<u64>,
    /// The number of the last event that is ready or was left out.
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
            // Numbers only grow, so this one belongs to an earlier start.
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
            // Marked as seen before the log is read, so that no event in between is overlooked.
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

    /// Reads the next batch; false if there was nothing new.
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
