//! Properties of the EPMD parsers, encoders and codecs for arbitrary bytes. Each function panics if one is violated.

use std::fmt::Debug;

use bytes::BytesMut;
use pmd_protocol::NodeName;
use pmd_protocol::epmd::encode::{alive2_reply, names_header, names_line, port2_found};
use pmd_protocol::epmd::parse::{frame, parse_request, read_limit};
use pmd_protocol::epmd::reply::parse_reply;
use pmd_protocol::epmd::{
    Alive2, ClientCodec, Expected, FramingError, Reply, Request, RequestError, ServerCodec, encode,
};
use pmd_protocol::limits::{LENGTH_PREFIX, MAX_EXTRA, MAX_LOOKUP_CHARS, MAX_REQUEST};
use tokio_util::codec::{Decoder, Encoder};

/// Checks bytes as received by a server.
pub fn request(data: &[u8]) {
    // More is read if and only if there is no result yet.
    assert_eq!(read_limit(data) > 0, matches!(frame(data), Ok(None)));

    let whole = decoded(ServerCodec::default(), &[data]);
    for width in [1, 3] {
        let chunks: Vec<&[u8]> = data.chunks(width).collect();
        let split = decoded(ServerCodec::default(), &chunks);
        if let Err(FramingError::Excess { announced, .. }) = frame(data) {
            // Surplus bytes that arrive after the length do not invalidate the request, see `frame`.
            let request = &data[..LENGTH_PREFIX + usize::from(announced)];
            assert_eq!(split.first(), decoded(ServerCodec::default(), &[request]).first());
        } else {
            assert_eq!(split, whole, "in chunks of {width}");
        }
    }

    // The same bytes, taken as a body without a length.
    match parse_request(data) {
        Ok(request) if data.len() <= MAX_REQUEST => {
            let mut bytes = Vec::new();
            assert_eq!(
                encode::request(&request, &mut bytes),
                Ok(()),
                "parsed but cannot be encoded: {request:?}"
            );
            assert_eq!(frame(&bytes).map(|body| body.map(parse_request)), Ok(Some(Ok(request))));
        }
        Err(RequestError::Refused { highest_version, .. }) => {
            assert_eq!(data.get(5..7), Some(&highest_version.to_be_bytes()[..]));
        }
        Ok(_) | Err(RequestError::Malformed(_)) => {}
    }
}

/// Checks one byte for the kind of request, followed by bytes as received by a client.
pub fn reply(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let asked = one_of_each(*kind);
    let client = || {
        let mut codec = ClientCodec::default();
        assert!(codec.encode(asked, &mut BytesMut::new()).is_ok());
        codec
    };
    let whole = decoded(client(), &[data]);
    for width in [1, 3] {
        let chunks: Vec<&[u8]> = data.chunks(width).collect();
        assert_eq!(decoded(client(), &chunks), whole, "in chunks of {width}");
    }

    // Everything that can be parsed has exactly one encoding.
    let Ok(Some((reply, used))) = parse_reply(Expected::from(&asked), data, true) else { return };
    let used = &data[..used];
    let mut bytes = Vec::new();
    match &reply {
        Reply::Port2Found(found) => port2_found(&found.as_alive2(), &mut bytes),
        Reply::Alive2 { result: 0, creation } if used.len() == 6 => {
            bytes.extend_from_slice(alive2_reply(6, Some(*creation)).as_bytes());
        }
        Reply::Names(listing) | Reply::Dump(listing) => {
            for entry in listing.entries() {
                names_line(entry.name, entry.port, &mut bytes);
                assert!(bytes.len() <= listing.text.len(), "entries do not come from the text");
            }
            bytes.clear();
            bytes.extend_from_slice(&names_header(listing.port));
            bytes.extend_from_slice(&listing.text);
        }
        Reply::Alive2 { .. } | Reply::Port2NotFound | Reply::Kill { .. } | Reply::Stop { .. } => return,
    }
    assert_eq!(bytes, used);
}

/// Checks that values generated from the bytes can be encoded and parsed back.
pub fn roundtrip(data: &[u8]) {
    let mut source = Source(data);
    let kind = source.u8();
    let (port, node_type, protocol) = (source.u16(), source.u8(), source.u8());
    let (highest_version, lowest_version) = (source.u16(), source.u16());
    let name_length = usize::from(source.u16());
    let name = source.bytes(name_length);
    let text = String::from_utf8_lossy(name);
    let alive2 =
        Alive2 { port, node_type, protocol, highest_version, lowest_version, name: &text, extra: source.0 };
    let request = match one_of_each(kind) {
        Request::Alive2(_) => Request::Alive2(alive2),
        Request::PortPlease2 { .. } => Request::PortPlease2 { name: &text },
        Request::Stop { .. } => Request::Stop { name },
        other => other,
    };

    let mut bytes = b"kept".to_vec();
    if encode::request(&request, &mut bytes).is_err() {
        assert!(!can_be_asked(&request), "not encoded: {request:?}");
        assert_eq!(bytes, b"kept");
        return;
    }
    assert!(can_be_asked(&request), "encoded despite a limit: {request:?}");
    let bytes = bytes.strip_prefix(b"kept").unwrap_or_default();
    assert_eq!(frame(bytes).map(|body| body.map(parse_request)), Ok(Some(Ok(request))));

    if let Request::Alive2(alive2) = request {
        replies_are_understood(&alive2);
    }
}

fn replies_are_understood(alive2: &Alive2<'_>) {
    let mut bytes = Vec::new();
    port2_found(alive2, &mut bytes);
    match parse_reply(Expected::Port2, &bytes, false) {
        Ok(Some((Reply::Port2Found(found), used))) => {
            assert_eq!((found.as_alive2(), used), (*alive2, bytes.len()));
        }
        other => panic!("{other:?} for {alive2:?}"),
    }

    let number = u32::from(alive2.port) << 16 | u32::from(alive2.lowest_version);
    for creation in [None, Some(number)] {
        let sent = alive2_reply(alive2.highest_version, creation);
        let expected = match (creation, alive2.highest_version) {
            (None, _) => 99,
            (Some(creation), 6..) => creation,
            (Some(creation), _) => creation % 3 + 1,
        };
        let reply = Reply::Alive2 { result: u8::from(creation.is_none()), creation: expected };
        let read = parse_reply(Expected::Alive2, sent.as_bytes(), false);
        assert_eq!(read, Ok(Some((reply, sent.as_bytes().len()))));
    }

    // Names are not escaped, so only names without spaces and line feeds survive a listing.
    if !alive2.name.contains([' ', '\n']) {
        let mut bytes = names_header(-1).to_vec();
        names_line("before", 1, &mut bytes);
        names_line(alive2.name, alive2.port, &mut bytes);
        match parse_reply(Expected::Names, &bytes, true) {
            Ok(Some((Reply::Names(listing), _))) => {
                let read: Vec<_> = listing.entries().map(|entry| (entry.name, entry.port)).collect();
                assert_eq!(read, [("before", 1), (alive2.name, alive2.port)]);
            }
            other => panic!("{other:?} for {bytes:?}"),
        }
    }
}

/// The limits, written independently of the encoder.
fn can_be_asked(request: &Request<'_>) -> bool {
    match request {
        Request::Alive2(alive2) => alive2.name.parse::<NodeName>().is_ok() && alive2.extra.len() <= MAX_EXTRA,
        Request::PortPlease2 { name } => {
            (1..=MAX_LOOKUP_CHARS).contains(&name.chars().count()) && !name.contains('\0')
        }
        Request::Stop { name } => !name.contains(&0) && name.len() < MAX_REQUEST,
        Request::Names | Request::Dump | Request::Kill => true,
    }
}

fn one_of_each(kind: u8) -> Request<'static> {
    match kind % 6 {
        0 => Request::PortPlease2 { name: "a" },
        1 => Request::Names,
        2 => Request::Dump,
        3 => Request::Kill,
        4 => Request::Stop { name: b"a" },
        _ => Request::Alive2(Alive2 {
            port: 1,
            node_type: 77,
            protocol: 0,
            highest_version: 6,
            lowest_version: 5,
            name: "a",
            extra: b"",
        }),
    }
}

/// The results of a codec for these chunks and the end of the stream, up to the first error.
fn decoded<D>(mut codec: D, chunks: &[&[u8]]) -> Vec<String>
where
    D: Decoder,
    D::Item: Debug,
    D::Error: Debug,
{
    let mut buffer = BytesMut::new();
    let mut said = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        if !drain(|buffer| codec.decode(buffer), &mut buffer, &mut said) {
            return said;
        }
    }
    drain(|buffer| codec.decode_eof(buffer), &mut buffer, &mut said);
    said
}

/// Whether the codec may be called again.
fn drain<T: Debug, E: Debug>(
    mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, E>,
    buffer: &mut BytesMut,
    said: &mut Vec<String>,
) -> bool {
    loop {
        match decode(buffer) {
            Ok(None) => return true,
            Ok(Some(item)) => said.push(format!("{item:?}")),
            Err(error) => {
                said.push(format!("{error:?}"));
                return false;
            }
        }
    }
}

/// Generates values from bytes, then from zeros once the bytes are used up.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn bytes(&mut self, wanted: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }
}
