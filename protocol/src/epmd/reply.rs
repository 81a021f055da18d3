//! Parsing of replies, for clients.
//!
//! How to read a reply depends on the request, because the replies to NAMES, DUMP, KILL and STOP do not identify
//! themselves. Servers refuse most requests by closing the connection without a reply ([`ReplyError::NoReply`]).

use bytes::Bytes;
use nom::branch::alt;
use nom::bytes::complete::{tag as whole_tag, take_till};
use nom::bytes::streaming::{tag, take};
use nom::character::complete::u16 as decimal;
use nom::combinator::{eof, value};
use nom::number::streaming::{be_i32, be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use super::encode::{ALIVE2_RESP, ALIVE2_X_RESP, KILL_OK, KILL_REFUSED, PORT2_RESP, STOP_NOEXIST, STOPPED};
use super::request::{Registration, Request};
use crate::limits::{LISTING_HEADER, MAX_EXTRA, MAX_LISTING, MAX_NAME_BYTES};
use crate::name::{NodeName, NodeNameError};

/// A server's reply, with owned fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// ALIVE2_X_RESP or ALIVE2_RESP, EPMD Protocol "Register a Node in EPMD". The connection stays open:
    /// closing it unregisters the node.
    Alive2 {
        /// 0 if the node is registered.
        result: u8,
        /// Distinguishes this incarnation of the node from earlier ones; 1 to 3 in an ALIVE2_RESP.
        creation: u32,
    },
    /// PORT2_RESP for a registered name, EPMD Protocol "Get the Distribution Port of Another Node".
    Port2Found(Registration),
    /// PORT2_RESP for any other name.
    Port2NotFound,
    /// NAMES_RESP, EPMD Protocol "Get All Registered Names from EPMD".
    Names(Listing),
    /// DUMP_RESP, EPMD Protocol "Dump All Data from EPMD".
    Dump(Listing),
    /// KILL_RESP, EPMD Protocol "Kill EPMD".
    Kill {
        /// Whether the server exits; it refuses while nodes are registered.
        killed: bool,
    },
    /// STOP_OK_RESP or STOP_NOTOK_RESP, EPMD Protocol "STOP_REQ (Not Used)".
    Stop {
        /// Whether the node was registered.
        stopped: bool,
    },
}

/// NAMES_RESP or DUMP_RESP: a port and human-readable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The port that the server was configured with, not truncated to 16 bits.
    pub port: i32,
    /// The lines as the server sent them. Names are not escaped.
    pub text: Bytes,
}

/// One line of [`Listing::entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedNode<'a> {
    /// The node's name.
    pub name: &'a str,
    /// The port on which it accepts distribution connections.
    pub port: u16,
}

impl Listing {
    /// The nodes of a NAMES_RESP, read as `erl` does: a name ends at the first space, and lines that do not have the
    /// form `name NAME at port PORT` with a line feed at the end are skipped.
    pub fn entries(&self) -> impl Iterator<Item = ListedNode<'_>> {
        self.text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| entry(line.strip_suffix(b"\n")?))
    }
}

fn entry(line: &[u8]) -> Option<ListedNode<'_>> {
    let parsed: IResult<&[u8], _, ()> = (
        whole_tag("name ".as_bytes()),
        take_till(|byte| byte == b' '),
        whole_tag(" at port ".as_bytes()),
        decimal,
        eof,
    )
        .parse(line);
    let (_, (_, name, _, port, _)) = parsed.ok()?;
    Some(ListedNode { name: std::str::from_utf8(name).ok()?, port })
}

/// The kind of reply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// See [`Reply::Alive2`].
    Alive2,
    /// See [`Reply::Port2Found`] and [`Reply::Port2NotFound`].
    Port2,
    /// See [`Reply::Names`].
    Names,
    /// See [`Reply::Dump`].
    Dump,
    /// See [`Reply::Kill`].
    Kill,
    /// See [`Reply::Stop`].
    Stop,
}

impl From<&Request<'_>> for Expected {
    fn from(request: &Request<'_>) -> Self {
        match request {
            Request::Alive2(_) => Self::Alive2,
            Request::PortPlease2 { .. } => Self::Port2,
            Request::Names => Self::Names,
            Request::Dump => Self::Dump,
            Request::Kill => Self::Kill,
            Request::Stop { .. } => Self::Stop,
        }
    }
}

/// The reason why bytes are not the expected reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The server closed the connection without a reply, which means that it refused the request.
    #[error("connection closed without a reply")]
    NoReply,
    /// The connection ended in the middle of the reply.
    #[error("connection closed in the middle of a reply")]
    Truncated,
    /// The bytes are not a reply to this request.
    #[error("not a reply to this request")]
    Unexpected,
    /// The name in a PORT2_RESP cannot be registered.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// The extra field is longer than [`MAX_EXTRA`].
    #[error("extra field is longer than {MAX_EXTRA} bytes")]
    ExtraTooLong,
    /// The text is longer than [`MAX_LISTING`].
    #[error("listing is longer than {MAX_LISTING} bytes")]
    ListingTooLong,
}

/// Parses a reply from the bytes received so far, and returns it with its length in bytes.
///
/// `ended` means that no more bytes will arrive; nothing else marks the end of a NAMES_RESP or DUMP_RESP. `Ok(None)`
/// means that more bytes must be read, and is never returned if `ended` is set. Lengths are checked as soon as they
/// arrive, without waiting for the bytes that they announce.
///
/// # Errors
///
/// If the bytes are not, and cannot become, the expected reply.
pub fn parse_reply(
    expected: Expected,
    input: &[u8],
    ended: bool,
) -> Result<Option<(Reply, usize)>, ReplyError> {
    let parsed = match expected {
        Expected::Alive2 => alive2(input),
        Expected::Port2 => port2(input),
        Expected::Names => listing(input, ended).map(|(rest, listing)| (rest, Reply::Names(listing))),
        Expected::Dump => listing(input, ended).map(|(rest, listing)| (rest, Reply::Dump(listing))),
        Expected::Kill => kill(input),
        Expected::Stop => stop(input, ended),
    };
    match parsed {
        Ok((rest, reply)) => Ok(Some((reply, input.len() - rest.len()))),
        Err(nom::Err::Error(Problem(error)) | nom::Err::Failure(Problem(error))) => Err(error),
        Err(nom::Err::Incomplete(_)) if !ended => Ok(None),
        Err(nom::Err::Incomplete(_)) if input.is_empty() => Err(ReplyError::NoReply),
        Err(nom::Err::Incomplete(_)) => Err(ReplyError::Truncated),
    }
}

/// A [`ReplyError`] for nom. Errors of nom itself all mean that the reply is unexpected.
struct Problem(ReplyError);

impl<I> nom::error::ParseError<I> for Problem {
    fn from_error_kind(_: I, _: nom::error::ErrorKind) -> Self {
        Self(ReplyError::Unexpected)
    }

    fn append(_: I, _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'a, T = Reply> = IResult<&'a [u8], T, Problem>;

fn fail<T>(error: ReplyError) -> Result<T, nom::Err<Problem>> {
    Err(nom::Err::Failure(Problem(error)))
}

/// EPMD Protocol, "Register a Node in EPMD". Servers before OTP 23 always send the short form.
fn alive2(input: &[u8]) -> Parsed<'_> {
    let wide = (tag(&[ALIVE2_X_RESP][..]), be_u8, be_u32).map(|(_, result, creation)| (result, creation));
    let narrow = (tag(&[ALIVE2_RESP][..]), be_u8, be_u16.map(u32::from))
        .map(|(_, result, creation)| (result, creation));
    alt((wide, narrow)).map(|(result, creation)| Reply::Alive2 { result, creation }).parse(input)
}

/// EPMD Protocol, "Get the Distribution Port of Another Node".
fn port2(input: &[u8]) -> Parsed<'_> {
    let (rest, (_, result)) = (tag(&[PORT2_RESP][..]), be_u8).parse(input)?;
    if result != 0 {
        return Ok((rest, Reply::Port2NotFound));
    }
    let (rest, (port, node_type, protocol, highest_version, lowest_version)) =
        (be_u16, be_u8, be_u8, be_u16, be_u16).parse(rest)?;
    let (rest, name) = counted(rest, MAX_NAME_BYTES, NodeNameError::TooManyBytes.into())?;
    let name = NodeName::parse_registered(name).or_else(|error| fail(error.into()))?;
    let (rest, extra) = counted(rest, MAX_EXTRA, ReplyError::ExtraTooLong)?;
    let extra = Bytes::copy_from_slice(extra);
    let found = Registration { port, node_type, protocol, highest_version, lowest_version, name, extra };
    Ok((rest, Reply::Port2Found(found)))
}

/// A 16-bit length, which is rejected at once if it is above `limit`, and that many bytes.
fn counted(input: &[u8], limit: usize, too_long: ReplyError) -> Parsed<'_, &[u8]> {
    let (rest, length) = be_u16(input)?;
    if usize::from(length) > limit {
        return fail(too_long);
    }
    take(length).parse(rest)
}

/// EPMD Protocol, "Get All Registered Names from EPMD" and "Dump All Data from EPMD".
fn listing(input: &[u8], ended: bool) -> Parsed<'_, Listing> {
    if input.len() > LISTING_HEADER + MAX_LISTING {
        return fail(ReplyError::ListingTooLong);
    }
    let (text, port) = be_i32(input)?;
    if !ended {
        return Err(nom::Err::Incomplete(nom::Needed::Unknown));
    }
    Ok((&[], Listing { port, text: Bytes::copy_from_slice(text) }))
}

/// EPMD Protocol, "Kill EPMD".
fn kill(input: &[u8]) -> Parsed<'_> {
    let killed = alt((value(true, tag(KILL_OK)), value(false, tag(KILL_REFUSED))));
    killed.map(|killed| Reply::Kill { killed }).parse(input)
}

/// EPMD Protocol, "STOP_REQ (Not Used)". The documentation says `NOEXIST` alone, and stock clients accept it.
fn stop(input: &[u8], ended: bool) -> Parsed<'_> {
    if ended && input == b"NOEXIST" {
        return Ok((&[], Reply::Stop { stopped: false }));
    }
    let stopped = alt((value(true, tag(STOPPED)), value(false, tag(STOP_NOEXIST))));
    stopped.map(|stopped| Reply::Stop { stopped }).parse(input)
}
