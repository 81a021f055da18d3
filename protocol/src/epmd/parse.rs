//! The server's side of the wire: which bytes are a request, and which one.
//!
//! Two steps. [`frame`] finds the one request of a connection in what was read so far; [`parse_request`]
//! takes it apart. Neither allocates: a look-up is answered from the bytes it arrived in.
//!
//! The order of the checks is part of the interface. It decides between a connection that is closed without a
//! byte ([`Malformed`]) and one that gets a refusal and stays open ([`Refusal`]), and clients can tell.

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use super::request::{
    ALIVE2_REQ, Alive2, DUMP_REQ, KILL_REQ, NAMES_REQ, PORT_PLEASE2_REQ, Request, STOP_REQ,
};
use crate::limits::{
    ALIVE2_FIXED, LENGTH_PREFIX, MAX_EXTRA, MAX_FIRST_READ, MAX_LOOKUP_CHARS, MAX_NAME_BYTES, MAX_NAME_CHARS,
    MAX_REQUEST,
};
use crate::name::{NodeNameError, check_registered, longer_than};

/// Input that can never become a request: close the connection without a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of 0, or above [`MAX_REQUEST`]. Known from the first two bytes, the rest is not waited for.
    #[error("request length {0} is not between 1 and {MAX_REQUEST}")]
    BadLength(u16),
    /// More bytes than the length says. A connection carries one request, so this is never "the next one",
    /// and stock executes none of it.
    #[error("request of {announced} bytes is followed by more: {got} bytes were sent")]
    Excess {
        /// The length in the prefix.
        announced: u16,
        /// How many bytes followed the prefix.
        got: usize,
    },
}

/// A complete request that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Close without a byte.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// An ALIVE2_REQ of sound structure whose content is not acceptable: send
    /// [`alive2_reply`](super::encode::alive2_reply)`(highest_version, None)` and keep the connection.
    #[error("registration refused: {refusal}")]
    Refused {
        /// The version the client announced; it selects the form of the refusal.
        highest_version: u16,
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// Why a request is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No opcode. [`frame`] never yields such a body.
    #[error("empty request")]
    Empty,
    /// None of the six that epmd knows.
    #[error("unknown request {0}")]
    UnknownOpcode(u8),
    /// ALIVE2_REQ without as much as one byte of name, extra or padding.
    #[error("registration is too short")]
    Alive2TooShort,
    /// The name's length leads beyond the request.
    #[error("registration's name ends beyond the request")]
    Alive2NameBeyondPacket,
    /// The extra's length leads beyond the request.
    #[error("registration's extra field ends beyond the request")]
    Alive2ExtraBeyondPacket,
    /// NUL in the name of a registration or look-up.
    #[error("name contains a NUL byte")]
    NulInName,
    /// PORT_PLEASE2_REQ without a name.
    #[error("look-up without a name")]
    LookupNameEmpty,
    /// PORT_PLEASE2_REQ whose name is not UTF-8.
    #[error("look-up name is not valid UTF-8")]
    LookupNameNotUtf8,
    /// PORT_PLEASE2_REQ for more than [`MAX_LOOKUP_CHARS`].
    #[error("look-up name is longer than {MAX_LOOKUP_CHARS} characters")]
    LookupNameTooLong,
    /// STOP_REQ without a name.
    #[error("stop without a name")]
    StopWithoutName,
}

/// Why a well-formed registration is refused before anything is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than [`MAX_NAME_BYTES`].
    #[error("name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooManyBytes,
    /// Not UTF-8.
    #[error("name is not valid UTF-8")]
    NameNotUtf8,
    /// More than [`MAX_NAME_CHARS`].
    #[error("name is longer than {MAX_NAME_CHARS} characters")]
    NameTooManyChars,
    /// More than [`MAX_EXTRA`].
    #[error("extra field is longer than {MAX_EXTRA} bytes")]
    ExtraTooLong,
}

/// Finds the one request of a connection in the bytes read so far.
///
/// `Ok(None)` means: read on, but no more than [`read_limit`] allows. Bytes that arrive after the length was
/// already known are then left unread, and the request is answered, as by stock; bytes beyond the request
/// that came together with the length make the whole input [`FrameError::Excess`].
///
/// # Errors
///
/// If the input cannot become a request.
pub fn frame(input: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let Some((length, body)) = split_length(input)? else { return Ok(None) };
    let announced = usize::from(length);
    if body.len() > announced {
        return Err(FrameError::Excess { announced: length, got: body.len() });
    }
    Ok((body.len() == announced).then_some(body))
}

/// How many more bytes may be read, given those read so far.
///
/// While the length is unknown, everything up to a request of maximal size; then never beyond the request. 0
/// once [`frame`] has something to say.
#[must_use]
pub fn read_limit(input: &[u8]) -> usize {
    match split_length(input) {
        Ok(None) => MAX_FIRST_READ.saturating_sub(input.len()),
        Ok(Some((length, body))) => usize::from(length).saturating_sub(body.len()),
        Err(_) => 0,
    }
}

/// The length and what follows it, once both its bytes are there.
fn split_length(input: &[u8]) -> Result<Option<(u16, &[u8])>, FrameError> {
    let Some((prefix, body)) = input.split_first_chunk::<LENGTH_PREFIX>() else { return Ok(None) };
    let length = u16::from_be_bytes(*prefix);
    if length == 0 || usize::from(length) > MAX_REQUEST {
        return Err(FrameError::BadLength(length));
    }
    Ok(Some((length, body)))
}

/// Takes the body of a request apart: opcode and what belongs to it, without the length.
///
/// # Errors
///
/// If it is none that could be carried out; the variant says what to do with the connection.
pub fn parse_request(body: &[u8]) -> Result<Request<'_>, RequestError> {
    let (&opcode, fields) = body.split_first().ok_or(Malformed::Empty)?;
    match opcode {
        PORT_PLEASE2_REQ => Ok(Request::PortPlease2 { name: port_please2(fields)? }),
        ALIVE2_REQ => alive2(fields),
        // Whatever follows these three is ignored.
        NAMES_REQ => Ok(Request::Names),
        DUMP_REQ => Ok(Request::Dump),
        KILL_REQ => Ok(Request::Kill),
        STOP_REQ if fields.is_empty() => Err(Malformed::StopWithoutName.into()),
        // The name is a C string: it ends at the first NUL, if there is one, and may be empty.
        STOP_REQ => Ok(Request::Stop { name: fields.split(|byte| *byte == 0).next().unwrap_or_default() }),
        unknown => Err(Malformed::UnknownOpcode(unknown).into()),
    }
}

/// EPMD Protocol, "Get the Distribution Port of Another Node". Some clients send a terminating NUL, so one is
/// dropped.
fn port_please2(fields: &[u8]) -> Result<&str, Malformed> {
    check_lookup(fields.strip_suffix(&[0]).unwrap_or(fields))
}

/// What can be looked up, which is not quite what can be registered.
pub(super) fn check_lookup(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::LookupNameEmpty);
    }
    if bytes.contains(&0) {
        return Err(Malformed::NulInName);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| Malformed::LookupNameNotUtf8)?;
    if longer_than(name, MAX_LOOKUP_CHARS) {
        return Err(Malformed::LookupNameTooLong);
    }
    Ok(name)
}

/// EPMD Protocol, "Register a Node in EPMD". `fields` begins after the opcode.
fn alive2(fields: &[u8]) -> Result<Request<'_>, RequestError> {
    // Stock wants one byte more than the fixed part has, so an empty name passes only if something follows
    // it.
    if fields.len() < ALIVE2_FIXED {
        return Err(Malformed::Alive2TooShort.into());
    }
    let (rest, (port, node_type, protocol, highest_version, lowest_version, name_length)) =
        alive2_head(fields).map_err(|_| Malformed::Alive2TooShort)?;
    // The extra's length has to be inside the packet for the name to be.
    let (rest, (name, extra_length)) =
        name_and_extra_length(rest, name_length).map_err(|_| Malformed::Alive2NameBeyondPacket)?;
    // What follows the extra is ignored.
    let (_, extra) = counted(rest, extra_length).map_err(|_| Malformed::Alive2ExtraBeyondPacket)?;

    let refused = |refusal| RequestError::Refused { highest_version, refusal };
    let name = check_registered(name).map_err(|error| match error {
        NodeNameError::Nul => Malformed::NulInName.into(),
        NodeNameError::TooManyBytes => refused(Refusal::NameTooManyBytes),
        NodeNameError::NotUtf8 => refused(Refusal::NameNotUtf8),
        NodeNameError::TooManyChars => refused(Refusal::NameTooManyChars),
    })?;
    if extra.len() > MAX_EXTRA {
        return Err(refused(Refusal::ExtraTooLong));
    }
    Ok(Request::Alive2(Alive2 { port, node_type, protocol, highest_version, lowest_version, name, extra }))
}

/// Port, node type, protocol, highest and lowest version, length of the name.
type Head = (u16, u8, u8, u16, u16, u16);

fn alive2_head(input: &[u8]) -> IResult<&[u8], Head, ()> {
    (be_u16, be_u8, be_u8, be_u16, be_u16, be_u16).parse(input)
}

fn name_and_extra_length(input: &[u8], name_length: u16) -> IResult<&[u8], (&[u8], u16), ()> {
    (take(name_length), be_u16).parse(input)
}

fn counted(input: &[u8], length: u16) -> IResult<&[u8], &[u8], ()> {
    take(length).parse(input)
}
