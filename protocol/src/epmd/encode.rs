//! Encoders for the server's replies and the client's requests.
//!
//! Replies carry no length. For every reply except the one to ALIVE2, clients rely on the end of the connection to find
//! the end of the reply, so a server must close it. Many clients read a reply with a single `read`, so a server must
//! write each reply in one piece.

use std::io::Write;

use super::parse::{Malformed, check_lookup};
use super::request::{
    ALIVE2_REQ, Alive2, DUMP_REQ, KILL_REQ, NAMES_REQ, PORT_PLEASE2_REQ, Request, STOP_REQ,
};
use crate::limits::{
    CREATION_VERSION, LENGTH_PREFIX, LISTING_HEADER, MAX_EXTRA, MAX_NAME_BYTES, MAX_REQUEST, REFUSED_CREATION,
};
use crate::name::{NodeNameError, check_registered};

/// First byte of the registration reply with a 32-bit creation.
pub const ALIVE2_X_RESP: u8 = 118;
/// First byte of the lookup reply.
pub const PORT2_RESP: u8 = 119;
/// First byte of the registration reply with a 16-bit creation.
pub const ALIVE2_RESP: u8 = 121;

/// PORT2_RESP, EPMD Protocol "Get the Distribution Port of Another Node", for a node that is not registered.
pub const PORT2_NOT_FOUND: [u8; 2] = [PORT2_RESP, 1];
/// The answer to KILL_REQ, EPMD Protocol "Kill EPMD", after which the daemon exits.
pub const KILL_OK: &[u8] = b"OK";
/// The answer to KILL_REQ while nodes are registered.
pub const KILL_REFUSED: &[u8] = b"NO";
/// The answer to STOP_REQ, EPMD Protocol "STOP_REQ (Not Used)".
pub const STOPPED: &[u8] = b"STOPPED";
/// The answer to STOP_REQ for a name that is not registered. The documentation says `NOEXIST`; stock epmd sends both
/// words.
pub const STOP_NOEXIST: &[u8] = b"NOEXISTSTOPPED";

/// ALIVE2_X_RESP or ALIVE2_RESP, EPMD Protocol "Register a Node in EPMD". It must be sent in one write, because `erl`
/// rejects a reply that arrives in two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive2Reply(Alive2Bytes);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive2Bytes {
    Wide([u8; 6]),
    Narrow([u8; 4]),
}

impl Alive2Reply {
    /// The encoded reply.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Alive2Bytes::Wide(bytes) => bytes,
            Alive2Bytes::Narrow(bytes) => bytes,
        }
    }
}

/// The reply to a registration, with its creation, or `None` if it is refused. EPMD Protocol, "Register a Node in
/// EPMD".
///
/// The highest version in the request determines the form of the reply. The short form only allows creations from 1 to
/// 3, so the full number is folded into that range.
#[must_use]
pub fn alive2_reply(highest_version: u16, creation: Option<u32>) -> Alive2Reply {
    let result = u8::from(creation.is_none());
    Alive2Reply(if highest_version >= CREATION_VERSION {
        let [a, b, c, d] = creation.unwrap_or(REFUSED_CREATION).to_be_bytes();
        Alive2Bytes::Wide([ALIVE2_X_RESP, result, a, b, c, d])
    } else {
        let [_, _, c, d] = creation.map_or(REFUSED_CREATION, |creation| creation % 3 + 1).to_be_bytes();
        Alive2Bytes::Narrow([ALIVE2_RESP, result, c, d])
    })
}

/// The reply to a lookup that found nothing, with this result: [`PORT2_NOT_FOUND`] for 1, the only one of stock epmd.
#[must_use]
pub fn port2_not_found(result: u8) -> [u8; 2] {
    [PORT2_RESP, result]
}

/// Appends the reply to a lookup that found `alive2`: PORT2_RESP, EPMD Protocol "Get the Distribution Port of Another
/// Node".
///
/// A name or extra field beyond its limit is truncated so that the reply stays well-formed; no registration has one.
pub fn port2_found(alive2: &Alive2<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[PORT2_RESP, 0]);
    address(alive2, out);
    counted(alive2.name.as_bytes(), MAX_NAME_BYTES, out);
    counted(alive2.extra, MAX_EXTRA, out);
}

/// The fields that ALIVE2_REQ and PORT2_RESP have in common before the name.
fn address(alive2: &Alive2<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&alive2.port.to_be_bytes());
    out.extend_from_slice(&[alive2.node_type, alive2.protocol]);
    out.extend_from_slice(&alive2.highest_version.to_be_bytes());
    out.extend_from_slice(&alive2.lowest_version.to_be_bytes());
}

/// A 16-bit length and that many bytes.
fn counted(bytes: &[u8], limit: usize, out: &mut Vec<u8>) {
    let bytes = bytes.get(..limit).unwrap_or(bytes);
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The header of NAMES_RESP and DUMP_RESP: the port that the daemon was *configured* with. `erl` compares it with its
/// own setting, so a number beyond 65535 must not be truncated.
#[must_use]
pub fn names_header(configured_port: i32) -> [u8; LISTING_HEADER] {
    configured_port.to_be_bytes()
}

/// Appends one line of NAMES_RESP, EPMD Protocol "Get All Registered Names from EPMD".
pub fn names_line(name: &str, port: u16, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail, here or below.
    let _ = writeln!(out, "name {name} at port {port}");
}

/// Appends the line of DUMP_RESP for a registered node, EPMD Protocol "Dump All Data from EPMD". It includes a NUL,
/// because stock epmd sends the terminator of its C string.
pub fn dump_active_line(name: &str, port: u16, fd: i32, out: &mut Vec<u8>) {
    let _ = write!(out, "active name     <{name}> at port {port}, fd = {fd}\n\0");
}

/// Appends the line of DUMP_RESP for a node that is remembered but no longer registered, EPMD Protocol "Dump All Data
/// from EPMD".
pub fn dump_old_line(name: &str, port: u16, fd: i32, out: &mut Vec<u8>) {
    let _ = write!(out, "old/unused name <{name}>, port = {port}, fd = {fd} \n\0");
}

/// The reason why a request cannot be encoded: every server would refuse or misread it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The name cannot be registered.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// The extra field is longer than [`MAX_EXTRA`].
    #[error("extra field is longer than {MAX_EXTRA} bytes")]
    ExtraTooLong,
    /// The name cannot be looked up.
    #[error(transparent)]
    Lookup(#[from] Malformed),
    /// The name of a STOP_REQ contains NUL, where a server would truncate it.
    #[error("name to stop contains a NUL byte")]
    StopNul,
    /// The name of a STOP_REQ makes the request longer than [`MAX_REQUEST`].
    #[error("name to stop is too long")]
    StopTooLong,
}

/// Appends a request as a client sends it, with its length. A server reads it back unchanged.
///
/// # Errors
///
/// If no server would read it back unchanged. `out` is unchanged then.
pub fn request(request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match request {
        Request::Alive2(alive2) => {
            check_registered(alive2.name.as_bytes())?;
            if alive2.extra.len() > MAX_EXTRA {
                return Err(EncodeError::ExtraTooLong);
            }
            framed(ALIVE2_REQ, out, |out| {
                address(alive2, out);
                counted(alive2.name.as_bytes(), MAX_NAME_BYTES, out);
                counted(alive2.extra, MAX_EXTRA, out);
                if alive2.name.is_empty() && alive2.extra.is_empty() {
                    // A server accepts an empty name only if something follows it, and ignores surplus bytes.
                    out.push(0);
                }
            });
        }
        Request::PortPlease2 { name } => {
            check_lookup(name.as_bytes())?;
            framed(PORT_PLEASE2_REQ, out, |out| out.extend_from_slice(name.as_bytes()));
        }
        Request::Names => framed(NAMES_REQ, out, |_| ()),
        Request::Dump => framed(DUMP_REQ, out, |_| ()),
        Request::Kill => framed(KILL_REQ, out, |_| ()),
        Request::Stop { name } => {
            if name.contains(&0) {
                return Err(EncodeError::StopNul);
            }
            if name.len() >= MAX_REQUEST {
                return Err(EncodeError::StopTooLong);
            }
            // A missing name is malformed, so the empty name is sent with its terminator.
            framed(STOP_REQ, out, |out| out.extend_from_slice(if name.is_empty() { &[0] } else { name }));
        }
    }
    Ok(())
}

/// Appends length, opcode and body. The caller has checked that they fit.
fn framed(opcode: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, opcode]);
    body(out);
    let length = u16::try_from(out.len() - start - LENGTH_PREFIX).unwrap_or(u16::MAX);
    if let Some(prefix) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<LENGTH_PREFIX>) {
        *prefix = length.to_be_bytes();
    }
}
