//! Encoding and decoding of frames.
//!
//! ```text
//!   0       4      5        6
//!   ├───────┼──────┼────────┼───────────────┤
//!   │ length│ kind │ layout │ body, postcard│     length: of everything after it, big-endian
//!   └───────┴──────┴────────┴───────────────┘
//! ```
//!
//! [`decode`] works on the bytes read so far. It checks a length before waiting for the bytes, so a reader never
//! buffers more than one frame of maximal size.

use super::frame::Frame;
use crate::limits::{FRAME_FIXED, FRAME_LENGTH, MAX_FRAME, MAX_HANDSHAKE_FRAME};

/// The layout of all messages so far.
const LAYOUT: u8 = 1;

/// The progress of a connection, which decides what may be sent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Until the handshake is complete: only [`Frame::Preface`], [`Frame::Proof`], [`Frame::Hello`] and
    /// [`Frame::Close`], in short frames.
    #[default]
    Handshake,
    /// Once both proofs and the peer's [`Frame::Hello`] are checked: all frames.
    Proven,
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message that this version understands.
    Frame(Frame),
    /// A message that this version does not understand. The receiver counts it and continues.
    Skipped {
        /// Its kind.
        kind: u8,
        /// The reason why it was skipped.
        why: Skip,
    },
}

/// The reason why a message was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// A kind or layout of a newer version.
    Unknown,
    /// The body does not match its kind.
    Malformed,
}

/// Invalid bytes, after which the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than this phase allows. This is known from its first four bytes, without waiting for the
    /// rest.
    #[error("frame of {length} bytes is longer than {limit}")]
    TooLong {
        /// The announced length.
        length: u32,
        /// The limit of this phase.
        limit: usize,
    },
    /// The frame is too short for a kind and a layout.
    #[error("frame of {0} bytes is too short for a type")]
    TooShort(u32),
    /// The frame is malformed, or of a kind that may not be sent before the handshake is complete.
    #[error("malformed or unexpected frame of type {0} in the handshake")]
    InHandshake(u8),
}

/// A message that cannot be sent, because its body is longer than a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {0} bytes does not fit into a frame")]
pub struct FrameTooLong(pub usize);

impl Phase {
    /// The length of the longest frame in bytes, without its length prefix.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::Handshake => MAX_HANDSHAKE_FRAME,
            Self::Proven => MAX_FRAME,
        }
    }
}

/// Decodes the first frame of `bytes` and returns it with its length in bytes; `None` if it is incomplete.
///
/// # Errors
///
/// If the connection must be closed.
pub fn decode(bytes: &[u8], phase: Phase) -> Result<Option<(Decoded, usize)>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<FRAME_LENGTH>() else { return Ok(None) };
    let announced = u32::from_be_bytes(*length);
    let limit = phase.limit();
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLong { length: announced, limit });
    }
    if length < FRAME_FIXED {
        return Err(FrameError::TooShort(announced));
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let Some((&[kind, layout], body)) = frame.split_first_chunk::<FRAME_FIXED>() else {
        return Err(FrameError::TooShort(announced));
    };
    let read = Some(layout).filter(|layout| *layout == LAYOUT).and_then(|_| Frame::read(kind, body));
    let read = read.map_or(Err(Skip::Unknown), |read| read.map_err(|_| Skip::Malformed));
    let decoded = match (phase, read) {
        (Phase::Proven, Ok(frame)) => Decoded::Frame(frame),
        (
            Phase::Handshake,
            Ok(frame @ (Frame::Preface(_) | Frame::Proof(_) | Frame::Hello(_) | Frame::Close(_))),
        ) => Decoded::Frame(frame),
        (Phase::Handshake, Ok(_) | Err(Skip::Malformed)) => return Err(FrameError::InHandshake(kind)),
        (_, Err(why)) => Decoded::Skipped { kind, why },
    };
    Ok(Some((decoded, FRAME_LENGTH + length)))
}

/// Appends a frame to `out`.
///
/// # Errors
///
/// If the frame is too long, which cannot happen while its fields are within their limits. `out` is unchanged then.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) -> Result<(), FrameTooLong> {
    // Writing to memory only fails for types that postcard does not support. No frame has one: the tests write all of
    // them. The receiver would skip an empty body as malformed.
    let body = frame.write().unwrap_or_default();
    let length = FRAME_FIXED + body.len();
    let announced = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameTooLong(length))?;
    out.extend_from_slice(&announced.to_be_bytes());
    out.extend_from_slice(&[frame.kind(), LAYOUT]);
    out.extend_from_slice(&body);
    Ok(())
}

#[cfg(feature = "codec")]
pub use framed::{PeerCodec, PeerError};

#[cfg(feature = "codec")]
mod framed {
    use std::io;

    use bytes::{Buf, BufMut, BytesMut};
    use tokio_util::codec::{Decoder, Encoder};

    use super::{Decoded, Frame, FrameError, FrameTooLong, Phase, decode, encode};

    /// The codec for both sides of a connection between daemons, for `tokio_util::codec::Framed`.
    #[derive(Debug, Default)]
    pub struct PeerCodec {
        phase: Phase,
    }

    /// The reason why frames can no longer be read or written.
    #[derive(Debug, thiserror::Error)]
    pub enum PeerError {
        /// See [`FrameError`].
        #[error(transparent)]
        Frame(#[from] FrameError),
        /// See [`FrameTooLong`]; nothing was written.
        #[error(transparent)]
        TooLong(#[from] FrameTooLong),
        /// The socket failed, or ended in the middle of a frame.
        #[error(transparent)]
        Io(#[from] io::Error),
    }

    impl PeerCodec {
        /// Accepts all frames from now on, because the handshake is complete.
        pub fn proven(&mut self) {
            self.phase = Phase::Proven;
        }
    }

    impl Decoder for PeerCodec {
        type Item = Decoded;
        type Error = PeerError;

        fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Decoded>, PeerError> {
            let Some((decoded, used)) = decode(src, self.phase)? else { return Ok(None) };
            src.advance(used);
            Ok(Some(decoded))
        }
    }

    impl Encoder<&Frame> for PeerCodec {
        type Error = PeerError;

        fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), PeerError> {
            let mut bytes = Vec::new();
            encode(frame, &mut bytes)?;
            dst.put_slice(&bytes);
            Ok(())
        }
    }
}
