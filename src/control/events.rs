//! The event stream: server-sent events, as they are sent and as they are read.
//!
//! A stream begins with `hello`, which says which start of the daemon the numbers belong to. A reader that comes
//! back tells the number it has read last (`since`, or the header `Last-Event-ID`) and that start (`boot`); what
//! it has missed for good is told with a `gap`. A reader that is slow is not waited for: events stay in the log
//! for a while, not in a queue of its own.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;

use super::{api, json};
use crate::base::shutdown::Shutdown;
use crate::directory::events::{Event, EventKind, EventLog};

/// Every kind of event there is.
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
/// Time without an event after which a reader is told that the stream still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that are put into one piece: bounds what one slow reader makes the daemon hold.
const BATCH: usize = 256;

/// What a reader asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The number of the last event that the reader knows; without it, only what happens from now on.
    pub since: Option<u64>,
    /// The start of the daemon which that number belongs to, if the reader knows.
    pub boot: Option<String>,
    /// The kinds; none means all.
    pub kinds: Vec<EventKind>,
}

/// Where the events of a stream come from.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// The log.
    pub log: Arc<EventLog>,
    /// Tells this run of the daemon from any other.
    pub boot_id: String,
    /// The name of this host, for events that happened here.
    pub host: String,
    /// The id of this daemon, if it takes part in a cluster.
    pub node_id: Option<String>,
    /// The end of the daemon, and of the stream.
    pub shutdown: Shutdown,
}

/// The stream that a reader gets. It ends when the daemon does.
pub fn send(source: EventSource, wanted: Wanted) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Sender::new(source, wanted), async |mut sender| {
        let text = sender.next().await?;
        Some((Ok(Bytes::from(text)), sender))
    })
}

#[derive(Debug)]
struct Sender {
    source: EventSource,
    newest: watch::Receiver<u64>,
    /// The number of the last event that was sent or left out.
    cursor: u64,
    kinds: Vec<EventKind>,
    /// What is sent first.
    opening: Option<String>,
}

impl Sender {
    fn new(source: EventSource, wanted: Wanted) -> Sender {
        let newest = source.log.watch();
        let last = source.log.last();
        let boot_id = source.boot_id.clone();
        let restarted = wanted.boot.is_some_and(|boot| boot != boot_id)
            // Numbers only grow, so this one is of an earlier start.
            || wanted.since.is_some_and(|since| since > last);
        let mut opening = String::new();
        block(&mut opening, None, "hello", &api::Hello { boot_id, last });
        if restarted {
            let gap = api::Gap { reason: api::GapReason::Restarted, missed: None };
            block(&mut opening, None, "gap", &gap);
        }
        let cursor = if restarted { 0 } else { wanted.since.unwrap_or(last) };
        Sender { newest, cursor, kinds: wanted.kinds, opening: Some(opening), source }
    }

    async fn next(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        loop {
            // Marked as seen before the log is read, so that nothing in between goes unnoticed.
            self.newest.borrow_and_update();
            let text = self.read_log();
            if !text.is_empty() {
                return Some(text);
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                // Also tells how far a reader of few kinds has come: it need not look at the rest again.
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(format!(": keep-alive\nid: {}\n\n", self.cursor)),
                _ = self.source.shutdown.wait() => return None,
            }
        }
    }

    fn read_log(&mut self) -> String {
        let mut text = String::new();
        loop {
            let since = self.source.log.since(self.cursor, BATCH);
            if since.missed > 0 {
                let gap = api::Gap { reason: api::GapReason::TooOld, missed: Some(since.missed) };
                block(&mut text, None, "gap", &gap);
            }
            for event in &since.events {
                if self.kinds.is_empty() || self.kinds.contains(&event.kind) {
                    block(&mut text, Some(event.seq), event.kind.as_str(), &on_the_wire(event, &self.source));
                }
            }
            self.cursor = since.last;
            if !text.is_empty() || since.events.is_empty() {
                return text;
            }
        }
    }
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

fn block(out: &mut String, id: Option<u64>, event: &str, data: &impl Serialize) {
    // Plain data always has a JSON form, and writing to a string cannot fail.
    let data = serde_json::to_string(data).unwrap_or_default();
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "event: {event}\ndata: {data}\n\n");
}

/// One message of a stream of server-sent events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The last number that the stream told, here or before.
    pub id: Option<u64>,
    /// The kind; empty for a mere sign of life.
    pub event: String,
    /// The data.
    pub data: String,
}

/// A stream whose lines do not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the event stream is longer than {} bytes", Reader::MAX_LINE)]
pub struct LineTooLong;

/// Takes a stream of server-sent events apart, in whatever pieces it comes.
///
/// WHATWG HTML, "Interpreting an event stream", as far as pmd's own streams make use of it.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    message: Message,
    ready: Vec<Message>,
}

impl Reader {
    /// Longest line: far more than any event, whose name has at most 1,020 bytes, escaped or not.
    const MAX_LINE: usize = 64 * 1024;

    /// Takes the next piece; returns the messages that are complete by now.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Message>, LineTooLong> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            if self.line.len() + part.len() > Reader::MAX_LINE {
                return Err(LineTooLong);
            }
            self.line.extend_from_slice(part);
            if ended {
                self.end_line();
            }
        }
        Ok(std::mem::take(&mut self.ready))
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.is_empty() {
            // The number stays for the messages that follow.
            let next = Message { id: self.message.id, ..Message::default() };
            self.ready.push(std::mem::replace(&mut self.message, next));
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = value.parse().ok().or(self.message.id),
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // A comment, or something of a later version.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"event: hello\ndata: {\"last\":7}\n\n: keep-alive\nid: 9\n\n\
        id: 10\nevent: name_up\ndata: a\ndata: b\n\n";

    fn message(id: Option<u64>, event: &str, data: &str) -> Message {
        Message { id, event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn a_stream_is_read_in_whatever_pieces_it_comes() {
        let expected = [
            message(None, "hello", "{\"last\":7}"),
            message(Some(9), "", ""),
            message(Some(10), "name_up", "a\nb"),
        ];
        for size in 1..=STREAM.len() {
            let mut reader = Reader::default();
            let read: Vec<_> =
                STREAM.chunks(size).flat_map(|piece| reader.push(piece).expect("short lines")).collect();
            assert_eq!(read, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_an_error_and_not_an_allocation() {
        let mut reader = Reader::default();
        let piece = [b'x'; 1024];
        assert_eq!((0..1000).find_map(|_| reader.push(&piece).err()), Some(LineTooLong));
    }
}
