//! Frames to bytes and back.
//!
//! ```text
//!   0       4      5        6
//!   ├───────┼──────┼────────┼───────────────┤
//!   │ length│ type │ layout │ body, postcard│     length: of all that follows it, big-endian
//!   └───────┴──────┴────────┴───────────────┘
//! ```
//!
//! [`decode`] works on whatever has been read so far. A length is checked before its bytes are waited for, so a reader
//! needs a buffer of one frame of maximal size and no more.

use serde::{Deserialize, Serialize};

use super::frame::Frame;
use crate::limits::{FRAME_FIXED, FRAME_LENGTH, MAX_FRAME, MAX_GREETING_FRAME};

/// The layout of all messages so far.
const LAYOUT: u8 = 1;

/// How far a link is, which decides what may be sent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Until both proofs are checked: only [`Frame::Hello`], [`Frame::Proof`] and [`Frame::Bye`], in short frames.
    #[default]
    Greeting,
    /// After that: everything.
    Proven,
}

/// One message, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Frame(Frame),
    /// A message that means nothing here. To be counted; the link goes on.
    Skipped {
        /// Its type.
        kind: u8,
        /// Why.
        why: Skip,
    },
}

/// Why a message was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// A type or layout of a newer version.
    Unknown,
    /// Its body is not what its type requires.
    Malformed,
}

/// Bytes that end the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed in this phase. Known from the first four bytes, the rest is not waited for.
    #[error("frame of {length} bytes is longer than {limit}")]
    TooLong {
        /// What the frame says.
        length: u32,
        /// What is allowed.
        limit: usize,
    },
    /// Without as much as type and layout.
    #[error("frame of {0} bytes has no type")]
    TooShort(u32),
    /// Malformed, or of a type that a stranger has no business to send.
    #[error("frame of type {0} before the proof")]
    BeforeProof(u8),
}

/// A message that cannot be sent: its body is longer than a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {0} bytes does not fit into a frame")]
pub struct TooLong(pub usize);

impl Phase {
    /// Bytes of the longest frame, without its length.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::Greeting => MAX_GREETING_FRAME,
            Self::Proven => MAX_FRAME,
        }
    }
}

impl Frame {
    /// The byte that stands for this kind of message.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Proof(_) => 2,
            Self::Bye(_) => 3,
            Self::Heartbeat(_) => 16,
            Self::Membership(_) => 17,
            Self::Update(_) => 18,
            Self::Have(_) => 19,
            Self::Pull(_) => 20,
            Self::Prune(_) => 21,
            Self::Ranges(_) => 22,
            Self::Probe(_) => 23,
            Self::Probed(_) => 24,
            Self::Lost(_) => 25,
            Self::Updates(_) => 26,
            Self::Clock(_) => 27,
            Self::Tally(_) => 28,
            Self::Open(_) => 48,
            Self::Opened(_) => 49,
            Self::DialBack(_) => 50,
            Self::Back(_) => 51,
            Self::Relay(_) => 52,
            Self::Depart(_) => 53,
        }
    }
}

/// Takes the first frame of `bytes`, and how many bytes it used; `None` if it is not complete.
///
/// # Errors
///
/// If the link has to end.
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
    let read = if layout == LAYOUT { read(kind, body) } else { Err(Skip::Unknown) };
    let decoded = match (phase, read) {
        (Phase::Proven, Ok(frame)) => Decoded::Frame(frame),
        (Phase::Greeting, Ok(frame @ (Frame::Hello(_) | Frame::Proof(_) | Frame::Bye(_)))) => {
            Decoded::Frame(frame)
        }
        (Phase::Greeting, Ok(_) | Err(Skip::Malformed)) => return Err(FrameError::BeforeProof(kind)),
        (_, Err(why)) => Decoded::Skipped { kind, why },
    };
    Ok(Some((decoded, FRAME_LENGTH + length)))
}

/// Appends a frame to `out`.
///
/// # Errors
///
/// If it is too long; `out` is as before then. A frame that respects the limits of its fields never is.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let body = match frame {
        Frame::Hello(body) => write(body),
        Frame::Proof(body) => write(body),
        Frame::Bye(body) => write(body),
        Frame::Heartbeat(body) => write(body),
        Frame::Membership(body) => write(body),
        Frame::Update(body) => write(body),
        Frame::Have(body) => write(body),
        Frame::Pull(body) => write(body),
        Frame::Prune(body) => write(body),
        Frame::Ranges(body) => write(body),
        Frame::Probe(body) => write(body),
        Frame::Probed(body) => write(body),
        Frame::Lost(body) => write(body),
        Frame::Updates(body) => write(body),
        Frame::Clock(body) => write(body),
        Frame::Tally(body) => write(body),
        Frame::Open(body) => write(body),
        Frame::Opened(body) => write(body),
        Frame::DialBack(body) => write(body),
        Frame::Back(body) => write(body),
        Frame::Relay(body) => write(body),
        Frame::Depart(body) => write(body),
    };
    let length = FRAME_FIXED + body.len();
    let announced = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(TooLong(length))?;
    out.extend_from_slice(&announced.to_be_bytes());
    out.extend_from_slice(&[frame.kind(), LAYOUT]);
    out.extend_from_slice(&body);
    Ok(())
}

fn read(kind: u8, body: &[u8]) -> Result<Frame, Skip> {
    Ok(match kind {
        1 => Frame::Hello(fields(body)?),
        2 => Frame::Proof(fields(body)?),
        3 => Frame::Bye(fields(body)?),
        16 => Frame::Heartbeat(fields(body)?),
        17 => Frame::Membership(fields(body)?),
        18 => Frame::Update(fields(body)?),
        19 => Frame::Have(fields(body)?),
        20 => Frame::Pull(fields(body)?),
        21 => Frame::Prune(fields(body)?),
        22 => Frame::Ranges(fields(body)?),
        23 => Frame::Probe(fields(body)?),
        24 => Frame::Probed(fields(body)?),
        25 => Frame::Lost(fields(body)?),
        26 => Frame::Updates(fields(body)?),
        27 => Frame::Clock(fields(body)?),
        28 => Frame::Tally(fields(body)?),
        48 => Frame::Open(fields(body)?),
        49 => Frame::Opened(fields(body)?),
        50 => Frame::DialBack(fields(body)?),
        51 => Frame::Back(fields(body)?),
        52 => Frame::Relay(fields(body)?),
        53 => Frame::Depart(fields(body)?),
        _ => return Err(Skip::Unknown),
    })
}

/// The fields at the start of `body`; what follows is from a newer version.
fn fields<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Skip> {
    postcard::take_from_bytes(body).map(|(fields, _)| fields).map_err(|_| Skip::Malformed)
}

fn write<T: Serialize>(body: &T) -> Vec<u8> {
    // Writing to memory fails only for types that postcard cannot express, and none of these has one (the tests write
    // all of them). An empty body would be skipped by the receiver as malformed.
    postcard::to_allocvec(body).unwrap_or_default()
}

#[cfg(feature = "codec")]
pub use framed::{PeerCodec, PeerError};

#[cfg(feature = "codec")]
mod framed {
    use std::io;

    use bytes::{Buf, BufMut, BytesMut};
    use tokio_util::codec::{Decoder, Encoder};

    use super::{Decoded, Frame, FrameError, Phase, TooLong, decode, encode};

    /// Both sides of a link, for `tokio_util::codec::Framed`.
    #[derive(Debug, Default)]
    pub struct PeerCodec {
        phase: Phase,
    }

    /// What ends the reading or writing of frames.
    #[derive(Debug, thiserror::Error)]
    pub enum PeerError {
        /// See [`FrameError`].
        #[error(transparent)]
        Frame(#[from] FrameError),
        /// See [`TooLong`]; nothing was written.
        #[error(transparent)]
        TooLong(#[from] TooLong),
        /// The socket failed, or ended in the middle of a frame.
        #[error(transparent)]
        Io(#[from] io::Error),
    }

    impl PeerCodec {
        /// Both proofs are checked: accept everything from now on.
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
