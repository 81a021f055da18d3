//! Parsing of requests, for servers.
//!
//! [`frame`] finds the request in the bytes read so far, and [`parse_request`] parses it. Neither allocates: a lookup
//! is answered from the bytes it arrived in.
//!
//! The order of the checks is part of the interface. It decides whether a connection is closed without a reply
//! ([`Malformed`]) or gets a refusal and stays open ([`Refusal`]), and clients can tell the difference.

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

/// The reason why input can never become a request; close the connection without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The length is 0 or above [`MAX_REQUEST`]. This is known from the first two bytes, without waiting for the rest.
    #[error("request length {0} is not between 1 and {MAX_REQUEST}")]
    BadLength(u16),
    /// More bytes arrived than the length announced. A connection carries one request, so they do not belong to
    /// another, and stock epmd ignores the whole input.
    #[error("request of {announced} bytes is followed by more: {got} bytes were sent")]
    Excess {
        /// The announced length.
        announced: u16,
        /// The number of bytes after the length.
        got: usize,
    },
}

/// The reason why a complete request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Close the connection without a reply.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The content of a well-formed ALIVE2_REQ is not acceptable: send
    /// [`alive2_reply`](super::encode::alive2_reply)`(highest_version, None)` and keep the connection open.
    #[error("registration refused: {refusal}")]
    Refused {
        /// The highest version that the client announced, which determines the form of the refusal.
        highest_version: u16,
        /// The reason for the refusal.
        refusal: Refusal,
    },
}

/// The reason why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The request has no opcode. [`frame`] never returns such a body.
    #[error("empty request")]
    Empty,
    /// The opcode is not one of the six that epmd knows.
    #[error("unknown request {0}")]
    UnknownOpcode(u8),
    /// An ALIVE2_REQ without a single byte of name, extra or padding.
    #[error("registration is too short")]
    Alive2TooShort,
    /// The name would end beyond the request.
    #[error("registration's name ends beyond the request")]
    Alive2NameBeyondPacket,
    /// The extra field would end beyond the request.
    #[error("registration's extra field ends beyond the request")]
    Alive2ExtraBeyondPacket,
    /// The name of a registration or lookup contains NUL.
    #[error("name contains a NUL byte")]
    NulInName,
    /// A PORT_PLEASE2_REQ without a name.
    #[error("lookup without a name")]
    LookupNameEmpty,
    /// The name of a PORT_PLEASE2_REQ is not UTF-8.
    #[error("lookup name is not valid UTF-8")]
    LookupNameNotUtf8,
    /// The name of a PORT_PLEASE2_REQ has more than [`MAX_LOOKUP_CHARS`] characters.
    #[error("lookup name is longer than {MAX_LOOKUP_CHARS} characters")]
    LookupNameTooLong,
    /// A STOP_REQ without a name.
    #[error("stop without a name")]
    StopWithoutName,
}

/// The reason why a well-formed registration is refused, regardless of what is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooManyBytes,
    /// The name is not UTF-8.
    #[error("name is not valid UTF-8")]
    NameNotUtf8,
    /// The name has more than [`MAX_NAME_CHARS`] characters.
    #[error("name is longer than {MAX_NAME_CHARS} characters")]
    NameTooManyChars,
    /// The extra field is longer than [`MAX_EXTRA`].
    #[error("extra field is longer than {MAX_EXTRA} bytes")]
    ExtraTooLong,
}

/// Finds the request of a connection in the bytes read so far.
///
/// `Ok(None)` means that more bytes must be read, but no more than [`read_limit`] allows. Surplus bytes that arrive
/// after the length is known are thus left unread and the request is answered, as in stock epmd. Surplus bytes that
/// arrived together with the length make the whole input [`FramingError::Excess`].
///
/// # Errors
///
/// If the input cannot become a request.
pub fn frame(input: &[u8]) -> Result<Option<&[u8]>, FramingError> {
    let Some((length, body)) = split_length(input)? else { return Ok(None) };
    let announced = usize::from(length);
    if body.len() > announced {
        return Err(FramingError::Excess { announced: length, got: body.len() });
    }
    Ok((body.len() == announced).then_some(body))
}

/// The number of bytes that may still be read, given those read so far.
///
/// While the length is unknown, enough for a request of maximal size; after that, never beyond the request. 0 once
/// [`frame`] returns a request or an error.
#[must_use]
pub fn read_limit(input: &[u8]) -> usize {
    match split_length(input) {
        Ok(None) => MAX_FIRST_READ.saturating_sub(input.len()),
        Ok(Some((length, body))) => usize::from(length).saturating_sub(body.len()),
        Err(_) => 0,
    }
}

/// The length and the bytes after it, once both bytes of the length have arrived.
fn split_length(input: &[u8]) -> Result<Option<(u16, &[u8])>, FramingError> {
    let Some((prefix, body)) = input.split_first_chunk::<LENGTH_PREFIX>() else { return Ok(None) };
    let length = u16::from_be_bytes(*prefix);
    if length == 0 || usize::from(length) > MAX_REQUEST {
        return Err(FramingError::BadLength(length));
    }
    Ok(Some((length, body)))
}

/// Parses the body of a request: the opcode and its fields, without the length.
///
/// # Errors
///
/// If it cannot be carried out. The variant determines what to do with the connection.
pub fn parse_request(body: &[u8]) -> Result<Request<'_>, RequestError> {
    let (&opcode, fields) = body.split_first().ok_or(Malformed::Empty)?;
    match opcode {
        PORT_PLEASE2_REQ => Ok(Request::PortPlease2 { name: port_please2(fields)? }),
        ALIVE2_REQ => alive2(fields),
        // Anything after these three opcodes is ignored.
        NAMES_REQ => Ok(Request::Names),
        DUMP_REQ => Ok(Request::Dump),
        KILL_REQ => Ok(Request::Kill),
        STOP_REQ if fields.is_empty() => Err(Malformed::StopWithoutName.into()),
        // The name is a C string: it may be empty, and ends at the first NUL, if any.
        STOP_REQ => Ok(Request::Stop { name: fields.split(|byte| *byte == 0).next().unwrap_or_default() }),
        unknown => Err(Malformed::UnknownOpcode(unknown).into()),
    }
}

/// EPMD Protocol, "Get the Distribution Port of Another Node". Some clients send a terminating NUL, which is dropped.
fn port_please2(fields: &[u8]) -> Result<&str, Malformed> {
    check_lookup(fields.strip_suffix(&[0]).unwrap_or(fields))
}

/// The rules for names in lookups, which differ slightly from those in registrations.
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

/// EPMD Protocol, "Register a Node in EPMD". `fields` starts after the opcode.
fn alive2(fields: &[u8]) -> Result<Request<'_>, RequestError> {
    // Stock epmd requires one byte more than the fixed part, so an empty name passes only if something follows it.
    if fields.len() < ALIVE2_FIXED {
        return Err(Malformed::Alive2TooShort.into());
    }
    let (rest, (port, node_type, protocol, highest_version, lowest_version, name_length)) =
        alive2_head(fields).map_err(|_| Malformed::Alive2TooShort)?;
    // The name is inside the request only if the length of the extra field is, too.
    let (rest, (name, extra_length)) =
        name_and_extra_length(rest, name_length).map_err(|_| Malformed::Alive2NameBeyondPacket)?;
    // Anything after the extra field is ignored.
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
