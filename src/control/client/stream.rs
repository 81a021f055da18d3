//! Responses that do not end: events, and services held by a connection.
//!
//! The event stream is decoded by `sse-stream`, not by `eventsource-stream`, which drops blocks without data and thus
//! the numbers in pmd's keep-alives, from which a reader of few kinds resumes.

use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sse_stream::{Sse, SseByteStream};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::error::{ClientError, Result};
use crate::control::api::{ClaimEnded, ClaimHeld, ServiceEnded, ServiceInfo};

/// Longest line of the event stream: far more than any event, whose name has at most 1,020 bytes, escaped or not.
const MAX_EVENT_LINE: usize = 64 * 1024;
/// Longest line about a held service: far more than a service with the most metadata allowed.
const MAX_SERVICE_LINE: usize = 256 * 1024;

/// One message of an event stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The latest number on the stream, from this message or an earlier one.
    pub id: Option<u64>,
    /// The kind; empty for a keep-alive.
    pub event: String,
    /// The data.
    pub data: String,
}

/// A daemon's events, until it shuts down.
pub struct Events {
    blocks: BoxStream<'static, std::result::Result<Sse, sse_stream::Error>>,
    id: Option<u64>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(body: Incoming) -> Events {
        Events::from_pieces(body.into_data_stream().err_into())
    }

    fn from_pieces(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Events {
        let mut line = 0;
        let bounded = pieces.map(move |piece| {
            let piece = piece?;
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                line += part.len();
                if line > MAX_EVENT_LINE {
                    let message = format!("a line of the event stream is longer than {MAX_EVENT_LINE} bytes");
                    return Err(ClientError::Unexpected(message));
                }
                if part.ends_with(b"\n") {
                    line = 0;
                }
            }
            Ok(piece)
        });
        Events { blocks: SseByteStream::new(bounded).boxed(), id: None }
    }

    /// The next message; none when the daemon has shut down.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        let block = match self.blocks.next().await {
            None => return Ok(None),
            Some(Ok(block)) => block,
            Some(Err(sse_stream::Error::Body(error))) => {
                let known = error.downcast::<ClientError>().map(|error| *error);
                return Err(known.unwrap_or_else(|error| ClientError::Lost(error.to_string())));
            }
            Some(Err(error)) => return Err(ClientError::Unexpected(error.to_string())),
        };
        self.id = block.id.and_then(|id| id.parse().ok()).or(self.id);
        let (event, data) = (block.event.unwrap_or_default(), block.data.unwrap_or_default());
        Ok(Some(Message { id: self.id, event, data }))
    }
}

/// A service that stays registered until this value is dropped or the daemon stops.
pub struct Held {
    /// The service.
    pub service: ServiceInfo,
    lines: Lines,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Held {
    pub(super) async fn read(body: Incoming) -> Result<Held> {
        let mut lines = lines(body);
        match lines.next().await {
            Some(Ok(line)) => Ok(Held { service: parse(line.as_bytes())?, lines }),
            Some(Err(LinesCodecError::Io(error))) => Err(ClientError::Lost(error.to_string())),
            Some(Err(error)) => Err(ClientError::Unexpected(error.to_string())),
            None => Err(ClientError::Lost("the daemon has stopped".into())),
        }
    }

    /// Waits until the daemon ends the service; returns the reason, or none if the connection broke.
    pub async fn ended(&mut self) -> Option<String> {
        let line = self.lines.next().await?.ok()?;
        serde_json::from_str(&line).ok().map(|ServiceEnded { ended }| ended)
    }
}

/// A claim that is held until this value is dropped or the daemon stops.
pub struct HeldClaim {
    /// The claim.
    pub held: ClaimHeld,
    lines: Lines,
}

/// What happened to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimUpdate {
    /// It was renewed.
    Renewed(ClaimHeld),
    /// It is over.
    Ended(String),
}

impl fmt::Debug for HeldClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldClaim").field("held", &self.held).finish_non_exhaustive()
    }
}

impl HeldClaim {
    pub(super) async fn read(body: Incoming) -> Result<HeldClaim> {
        let mut lines = lines(body);
        match lines.next().await {
            Some(Ok(line)) => Ok(HeldClaim { held: parse(line.as_bytes())?, lines }),
            Some(Err(LinesCodecError::Io(error))) => Err(ClientError::Lost(error.to_string())),
            Some(Err(error)) => Err(ClientError::Unexpected(error.to_string())),
            None => Err(ClientError::Lost("the daemon has stopped".into())),
        }
    }

    /// The next thing that happens to it; none if the daemon has stopped.
    pub async fn next(&mut self) -> Option<ClaimUpdate> {
        let line = self.lines.next().await?.ok()?;
        if let Ok(held) = serde_json::from_str(&line) {
            return Some(ClaimUpdate::Renewed(held));
        }
        serde_json::from_str(&line).ok().map(|ClaimEnded { ended }| ClaimUpdate::Ended(ended))
    }
}

type Lines = BoxStream<'static, std::result::Result<String, LinesCodecError>>;

fn lines(body: Incoming) -> Lines {
    let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    FramedRead::new(reader, LinesCodec::new_with_max_length(MAX_SERVICE_LINE)).boxed()
}

/// Parses the JSON of a response.
pub(super) fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| ClientError::Unexpected(error.to_string()))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const STREAM: &[u8] = b"event: hello\ndata: {\"last\":7}\n\n: keep-alive\nid: 9\n\n\
        id: 10\nevent: name_up\ndata: a\ndata: b\n\nevent: gap\ndata: c\n\n";

    fn events(pieces: impl Iterator<Item = &'static [u8]> + Send + 'static) -> Events {
        Events::from_pieces(stream::iter(pieces.map(|piece| Ok(Bytes::from_static(piece)))))
    }

    fn message(id: Option<u64>, event: &str, data: &str) -> Message {
        Message { id, event: event.to_owned(), data: data.to_owned() }
    }

    #[tokio::test]
    async fn a_stream_is_read_in_whatever_pieces_it_comes() {
        let expected = [
            message(None, "hello", "{\"last\":7}"),
            message(Some(9), "", ""),
            message(Some(10), "name_up", "a\nb"),
            message(Some(10), "gap", "c"),
        ];
        for size in 1..=STREAM.len() {
            let mut events = events(STREAM.chunks(size));
            for expected in &expected {
                let read = events.next().await.expect("short lines");
                assert_eq!(read.as_ref(), Some(expected), "in pieces of {size}");
            }
            assert_eq!(events.next().await.expect("the end"), None);
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_an_error_and_not_an_allocation() {
        let mut endless = events(std::iter::repeat(&[b'x'; 1024]).map(|piece| piece.as_slice()));
        assert!(matches!(endless.next().await, Err(ClientError::Unexpected(_))));
        assert_eq!(endless.next().await.expect("the end"), None);
    }
}
