//! Codecs for `tokio_util::codec::Framed`, one for the server and one for the client.
//!
//! A connection carries one request and one reply, so each codec handles one exchange and reports any later bytes as an
//! error. Lengths are checked before a buffer grows: a server buffers at most
//! [`MAX_FIRST_READ`](crate::limits::MAX_FIRST_READ) bytes, a client [`MAX_LISTING`](crate::limits::MAX_LISTING) and a
//! header.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::encode::{
    Alive2Reply, EncodeError, KILL_OK, KILL_REFUSED, PORT2_NOT_FOUND, STOP_NOEXIST, STOPPED, names_header,
    port2_found, request,
};
use super::parse::{FramingError, RequestError, frame, parse_request, read_limit};
use super::reply::{Expected, Reply, ReplyError, parse_reply};
use super::request::{Alive2, OwnedRequest, Request};
use crate::limits::LENGTH_PREFIX;

/// The server side: reads one request, writes one reply.
///
/// [`RequestError::Refused`] is reported as an error although the connection stays open. `Framed` ends its stream on an
/// error, so the session answers and then watches the socket itself, as it does after a registration.
///
/// Whether surplus bytes are an error depends on when they arrived, see [`frame`]. Each call of `decode` sees the
/// result of one read.
#[derive(Debug, Default)]
pub struct ServerCodec {
    progress: ServerProgress,
}

/// ```text
/// Length ── length read, body not complete ─▶ Body ─┐
///    └───────────── request complete ───────────────┴─▶ Done
/// ```
#[derive(Clone, Copy, Debug, Default)]
enum ServerProgress {
    #[default]
    Length,
    /// The length is known: the request has this many bytes including its length, and any others are ignored.
    Body(usize),
    Done,
}

/// The reason why no more requests can be read.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// See [`FramingError`]: close.
    #[error(transparent)]
    Frame(#[from] FramingError),
    /// See [`RequestError`]: close, or refuse and keep the connection open.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request was followed by more bytes. On the connection of a registered node, they end the registration.
    #[error("more bytes after the request")]
    AfterRequest,
    /// The peer stopped sending before its request was complete.
    #[error("connection closed in the middle of a request")]
    Truncated,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Decoder for ServerCodec {
    type Item = OwnedRequest;
    type Error = ServerError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<OwnedRequest>, ServerError> {
        let visible: &[u8] = match self.progress {
            ServerProgress::Done if src.is_empty() => return Ok(None),
            ServerProgress::Done => return Err(ServerError::AfterRequest),
            ServerProgress::Body(whole) => src.get(..whole).unwrap_or(src),
            ServerProgress::Length => src,
        };
        let Some(body) = frame(visible)? else {
            if visible.len() >= LENGTH_PREFIX {
                self.progress = ServerProgress::Body(visible.len() + read_limit(visible));
            }
            return Ok(None);
        };
        let used = LENGTH_PREFIX + body.len();
        let request = parse_request(body).map(|request| OwnedRequest::from_parsed(&request));
        // A refused request is complete too, although its connection stays open.
        self.progress = ServerProgress::Done;
        src.advance(used);
        Ok(Some(request?))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<OwnedRequest>, ServerError> {
        match self.decode(src)? {
            None if !src.is_empty() => {
                src.clear();
                Err(ServerError::Truncated)
            }
            decoded => Ok(decoded),
        }
    }
}

/// A reply written by [`ServerCodec`]; see [`encode`](super::encode) for the bytes.
#[derive(Clone, Copy, Debug)]
pub enum ServerReply<'a> {
    /// The answer to a registration.
    Alive2(Alive2Reply),
    /// The answer to a lookup that found this node.
    Port2Found(&'a Alive2<'a>),
    /// The answer to a lookup that found nothing.
    Port2NotFound,
    /// The answer to NAMES_REQ or DUMP_REQ.
    Listing {
        /// The configured port.
        port: i32,
        /// The text of all lines, as sent.
        text: &'a [u8],
    },
    /// The answer to KILL_REQ.
    Kill {
        /// Whether the daemon exits.
        killed: bool,
    },
    /// The answer to STOP_REQ.
    Stop {
        /// Whether the node was registered.
        stopped: bool,
    },
}

impl Encoder<ServerReply<'_>> for ServerCodec {
    type Error = io::Error;

    fn encode(&mut self, reply: ServerReply<'_>, dst: &mut BytesMut) -> io::Result<()> {
        match reply {
            ServerReply::Alive2(reply) => dst.put_slice(reply.as_bytes()),
            ServerReply::Port2Found(alive2) => {
                let mut bytes = Vec::new();
                port2_found(alive2, &mut bytes);
                dst.put_slice(&bytes);
            }
            ServerReply::Port2NotFound => dst.put_slice(&PORT2_NOT_FOUND),
            ServerReply::Listing { port, text } => {
                dst.put_slice(&names_header(port));
                dst.put_slice(text);
            }
            ServerReply::Kill { killed } => dst.put_slice(if killed { KILL_OK } else { KILL_REFUSED }),
            ServerReply::Stop { stopped } => dst.put_slice(if stopped { STOPPED } else { STOP_NOEXIST }),
        }
        Ok(())
    }
}

/// The client side: writes one request, reads its reply.
///
/// The encoded request determines which reply is expected. Replies to NAMES and DUMP are complete when the server
/// closes the connection, all others as soon as their bytes have arrived.
#[derive(Debug, Default)]
pub struct ClientCodec {
    progress: ClientProgress,
}

/// `Idle ── request encoded ─▶ Waiting ── reply or error ─▶ Done`
#[derive(Clone, Copy, Debug, Default)]
enum ClientProgress {
    #[default]
    Idle,
    Waiting(Expected),
    Done,
}

/// Why a client's exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// See [`EncodeError`]; nothing was sent.
    #[error(transparent)]
    Request(#[from] EncodeError),
    /// See [`ReplyError`].
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The connection has already carried a request; nothing was sent.
    #[error("a connection carries one request only")]
    SecondRequest,
    /// The server sent bytes before the request or after its reply.
    #[error("the server sent unexpected bytes")]
    Unasked,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Encoder<Request<'_>> for ClientCodec {
    type Error = ClientError;

    fn encode(&mut self, item: Request<'_>, dst: &mut BytesMut) -> Result<(), ClientError> {
        if !matches!(self.progress, ClientProgress::Idle) {
            return Err(ClientError::SecondRequest);
        }
        let mut bytes = Vec::new();
        request(&item, &mut bytes)?;
        dst.put_slice(&bytes);
        self.progress = ClientProgress::Waiting(Expected::from(&item));
        Ok(())
    }
}

impl Encoder<OwnedRequest> for ClientCodec {
    type Error = ClientError;

    fn encode(&mut self, item: OwnedRequest, dst: &mut BytesMut) -> Result<(), ClientError> {
        self.encode(item.as_request(), dst)
    }
}

impl ClientCodec {
    fn read(&mut self, src: &mut BytesMut, ended: bool) -> Result<Option<Reply>, ClientError> {
        let ClientProgress::Waiting(expected) = self.progress else {
            return if src.is_empty() { Ok(None) } else { Err(ClientError::Unasked) };
        };
        let Some((reply, used)) = parse_reply(expected, src, ended).inspect_err(|_| {
            self.progress = ClientProgress::Done;
        })?
        else {
            return Ok(None);
        };
        self.progress = ClientProgress::Done;
        src.advance(used);
        Ok(Some(reply))
    }
}

impl Decoder for ClientCodec {
    type Item = Reply;
    type Error = ClientError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, ClientError> {
        self.read(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, ClientError> {
        self.read(src, true)
    }
}
