//! Properties of the frames between daemons for arbitrary bytes. Each function panics if one is violated.

use bytes::BytesMut;
use pmd_protocol::limits::{FRAME_LENGTH, MAX_FRAME};
use pmd_protocol::peer::codec::{Decoded, PeerCodec, Phase, decode, encode};
use pmd_protocol::peer::{Entry, Frame, Key, Op, Value};
use tokio_util::codec::Decoder;

/// Checks bytes as received by a daemon.
pub fn frames(data: &[u8]) {
    for phase in [Phase::Handshake, Phase::Proven] {
        let mut rest = data;
        let mut all = Vec::new();
        let end = loop {
            match decode(rest, phase) {
                Ok(Some((decoded, used))) => {
                    assert!(used > FRAME_LENGTH && used <= FRAME_LENGTH + phase.limit());
                    assert_eq!(decode(&rest[..used], phase), Ok(Some((decoded.clone(), used))));
                    assert_eq!(decode(&rest[..used - 1], phase), Ok(None), "complete before its last byte");
                    if let Decoded::Frame(frame) = &decoded {
                        again(frame);
                    }
                    all.push(decoded);
                    rest = &rest[used..];
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if end.is_none() {
            assert!(rest.len() < FRAME_LENGTH + phase.limit(), "a complete frame was not decoded");
        }
        // The result must not depend on how the bytes are split.
        let mut codec = PeerCodec::default();
        if phase == Phase::Proven {
            codec.proven();
        }
        let (mut buffer, mut split) = (BytesMut::new(), Vec::new());
        let failed = data.chunks(7).any(|chunk| {
            buffer.extend_from_slice(chunk);
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(decoded)) => split.push(decoded),
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            }
        });
        assert_eq!((split, failed), (all, end.is_some()));
    }
}

/// Checks the body of a frame, preceded by its kind.
pub fn body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let Ok(length) = u32::try_from(body.len() + 2) else { return };
    let frame = [&length.to_be_bytes()[..], &[*kind, 1], body].concat();
    if body.len() + 2 <= MAX_FRAME {
        frames(&frame);
    }
}

/// Checks that a decoded frame can be encoded and decoded again, and that its entries are rejected or can be read and
/// written.
fn again(frame: &Frame) {
    let mut bytes = Vec::new();
    assert_eq!(encode(frame, &mut bytes), Ok(()), "was read but cannot be written");
    let decoded = decode(&bytes, Phase::Proven);
    assert_eq!(decoded, Ok(Some((Decoded::Frame(frame.clone()), bytes.len()))));
    let entries: Vec<(&Key, &Value)> = match frame {
        Frame::Update(update) => update.ops.iter().filter_map(|(_, op)| put(op)).collect(),
        Frame::Answer(answer) => answer.entries.iter().map(|(key, value)| (key, value)).collect(),
        _ => return,
    };
    for (key, value) in entries {
        if let Ok(entry) = Entry::read(key, value) {
            let (same_key, written) = entry.write().expect("was read but cannot be written");
            assert_eq!(&same_key, key);
            assert_eq!(Entry::read(key, &written), Ok(entry));
        }
    }
}

fn put(op: &Op) -> Option<(&Key, &Value)> {
    match op {
        Op::Put(key, value) => Some((key, value)),
        Op::Delete(_) => None,
    }
}
