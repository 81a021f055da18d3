//! Properties that hold for all values and all bytes.

use bytes::{Bytes, BytesMut};
use pmd_protocol::NodeName;
use pmd_protocol::epmd::encode::{alive2_reply, request};
use pmd_protocol::epmd::parse::{frame, parse_request, read_limit};
use pmd_protocol::epmd::reply::parse_reply;
use pmd_protocol::epmd::{
    Alive2, ClientCodec, Expected, FramingError, Listing, Malformed, OwnedRequest, Registration, Reply,
    Request, ServerCodec, ServerReply,
};
use pmd_protocol::limits::{LENGTH_PREFIX, MAX_REQUEST};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

const LOOK_UP: Request<'static> = Request::PortPlease2 { name: "a" };
const STOP: Request<'static> = Request::Stop { name: b"a" };
const ALIVE2: Request<'static> = Request::Alive2(Alive2 {
    port: 1,
    node_type: 77,
    protocol: 0,
    highest_version: 6,
    lowest_version: 5,
    name: "a",
    extra: b"",
});

/// Prefixes of replies, so that some inputs pass the first check.
const REPLY_STARTS: [&[u8]; 9] = [b"", b"w\0", b"w\x01", b"v\0", b"y", b"OK", b"N", b"NOEXIST", b"STOP"];

/// The bytes on both sides of every boundary in the definition of UTF-8.
const UTF8_TURNS: &[u8] = b"\x01a\x7f\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xdf\xe0\xed\xef\xf0\xf4\xf5";

/// Names that can be registered, with characters of any width and often near a limit.
fn node_name() -> impl Strategy<Value = NodeName> {
    let text = prop_oneof![
        "[^\\x00]{0,12}",
        "[a-z]{250,255}",
        "[\\u{10000}-\\u{10ffff}]{250,255}",
        "[a-zé€😀 @\n]{0,255}",
    ];
    text.prop_filter_map("the name is too long", |text| text.parse().ok())
}

prop_compose! {
    fn registration()(
        (port, node_type, protocol) in any::<(u16, u8, u8)>(),
        (highest_version, lowest_version) in any::<(u16, u16)>(),
        name in node_name(),
        extra in prop_oneof![vec(any::<u8>(), 0..8), vec(any::<u8>(), 1015..=1020)],
    ) -> Registration {
        Registration { port, node_type, protocol, highest_version, lowest_version, name, extra: extra.into() }
    }
}

fn owned_request() -> impl Strategy<Value = OwnedRequest> {
    prop_oneof![
        registration().prop_map(OwnedRequest::Alive2),
        node_name()
            .prop_filter("cannot be looked up", |name| (1..=254).contains(&name.as_str().chars().count()))
            .prop_map(|name| OwnedRequest::PortPlease2 { name }),
        Just(OwnedRequest::Names),
        Just(OwnedRequest::Dump),
        Just(OwnedRequest::Kill),
        vec(1..=255_u8, 0..40).prop_map(|name| OwnedRequest::Stop { name: name.into() }),
    ]
}

/// Arbitrary bytes that mostly pass the checks of length and opcode.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let body =
        (prop::sample::select(b"xzndks?".to_vec()), vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..60))
            .prop_map(|(opcode, fields)| [&[opcode][..], &fields].concat());
    let framed = (body, -1..=1_i16).prop_map(|(body, lie)| {
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX).saturating_add_signed(lie);
        [&length.to_be_bytes()[..], &body].concat()
    });
    prop_oneof![4 => framed, 1 => vec(any::<u8>(), 0..80)]
}

/// Splits `bytes` into parts of the given sizes, which repeat.
fn parts<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    let mut parts = Vec::new();
    while let Some(size) = sizes.next().filter(|_| !bytes.is_empty()) {
        let (part, rest) = bytes.split_at(bytes.len().min(*size));
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// The first result of a codec for these parts and the end of the stream.
fn said<D: Decoder>(codec: &mut D, parts: &[&[u8]]) -> Result<Option<D::Item>, D::Error> {
    let mut buffer = BytesMut::new();
    for part in parts {
        buffer.extend_from_slice(part);
        if let Some(item) = codec.decode(&mut buffer)? {
            return Ok(Some(item));
        }
    }
    codec.decode_eof(&mut buffer)
}

/// A client that has sent `item`, and the bytes it sent.
fn asked(item: Request<'_>) -> (ClientCodec, BytesMut) {
    let mut codec = ClientCodec::default();
    let mut sent = BytesMut::new();
    let result = codec.encode(item, &mut sent);
    assert!(result.is_ok(), "{item:?}: {result:?}");
    (codec, sent)
}

fn shown<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?}")
}

proptest! {
    #[test]
    fn decode_of_encode_is_identity(item in owned_request(), sizes in vec(1..50_usize, 1..5)) {
        let (_, sent) = asked(item.as_request());
        let read = said(&mut ServerCodec::default(), &parts(&sent, &sizes));
        prop_assert_eq!(read.ok().flatten(), Some(item));
    }

    #[test]
    fn decode_of_encode_is_identity_for_replies(
        found in registration(),
        (number, port) in any::<(u32, i32)>(),
        text in vec(any::<u8>(), 0..60),
        flag in any::<bool>(),
        sizes in vec(1..50_usize, 1..5),
    ) {
        let found_reply = found.as_alive2();
        let listing = Listing { port, text: Bytes::from(text.clone()) };
        let found_by_name = Reply::Port2Found(found.clone());
        let rows = [
            (Request::Alive2(found_reply), ServerReply::Alive2(alive2_reply(6, Some(number))),
                Reply::Alive2 { result: 0, creation: number }),
            (LOOK_UP, ServerReply::Port2Found(&found_reply), found_by_name),
            (LOOK_UP, ServerReply::Port2NotFound, Reply::Port2NotFound),
            (Request::Names, ServerReply::Listing { port, text: &text }, Reply::Names(listing.clone())),
            (Request::Dump, ServerReply::Listing { port, text: &text }, Reply::Dump(listing)),
            (Request::Kill, ServerReply::Kill { killed: flag }, Reply::Kill { killed: flag }),
            (STOP, ServerReply::Stop { stopped: flag }, Reply::Stop { stopped: flag }),
        ];
        for (item, sent, reply) in rows {
            let mut bytes = BytesMut::new();
            ServerCodec::default().encode(sent, &mut bytes)?;
            let read = said(&mut asked(item).0, &parts(&bytes, &sizes));
            prop_assert_eq!(read.ok().flatten(), Some(reply));
        }
    }

    #[test]
    fn creations_below_version_6_are_1_to_3(version in 0..6_u16, creation in any::<u32>()) {
        let reply = parse_reply(Expected::Alive2, alive2_reply(version, Some(creation)).as_bytes(), false);
        let expected = Reply::Alive2 { result: 0, creation: creation % 3 + 1 };
        prop_assert_eq!(reply, Ok(Some((expected, 4))));
    }

    /// Surplus bytes are an exception, because the time of their arrival matters: see the next test.
    #[test]
    fn any_split_gives_the_same_result(bytes in input(), sizes in vec(1..30_usize, 1..6)) {
        prop_assume!(!matches!(frame(&bytes), Err(FramingError::Excess { .. })));
        let whole = said(&mut ServerCodec::default(), &[&bytes]);
        let split = said(&mut ServerCodec::default(), &parts(&bytes, &sizes));
        prop_assert_eq!(shown(split), shown(whole));
    }

    #[test]
    fn surplus_counts_only_when_it_comes_with_the_length(
        item in owned_request(),
        surplus in vec(any::<u8>(), 1..9),
        sizes in vec(1..30_usize, 1..6),
    ) {
        let (_, sent) = asked(item.as_request());
        let bytes = [&sent[..], &surplus].concat();
        let parts = parts(&bytes, &sizes);
        let mut seen = 0;
        let with_length = parts.iter().find_map(|part| {
            seen += part.len();
            (seen >= LENGTH_PREFIX).then_some(seen)
        });
        match said(&mut ServerCodec::default(), &parts) {
            Ok(Some(read)) => {
                prop_assert!(with_length <= Some(sent.len()));
                prop_assert_eq!(read, item);
            }
            other => {
                prop_assert!(with_length > Some(sent.len()));
                prop_assert!(shown(other).contains("Excess"));
            }
        }
    }

    #[test]
    fn any_split_of_a_reply_gives_the_same_result(
        item in prop::sample::select(vec![
            ALIVE2, LOOK_UP, Request::Names, Request::Dump, Request::Kill, STOP,
        ]),
        start in prop::sample::select(REPLY_STARTS.to_vec()),
        rest in vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..60),
        sizes in vec(1..9_usize, 1..6),
    ) {
        let bytes = [start, &rest].concat();
        let whole = said(&mut asked(item).0, &[&bytes]);
        let split = said(&mut asked(item).0, &parts(&bytes, &sizes));
        prop_assert_eq!(shown(split), shown(whole));
    }

    #[test]
    fn reading_no_more_than_the_limit_never_finds_excess(bytes in input()) {
        let mut read = LENGTH_PREFIX.min(bytes.len());
        while frame(&bytes[..read]) == Ok(None) && read < bytes.len() {
            let more = read_limit(&bytes[..read]);
            prop_assert!(more > 0, "no result although nothing more may be read");
            read = bytes.len().min(read + more);
        }
        let excess = matches!(frame(&bytes[..read]), Err(FramingError::Excess { .. }));
        prop_assert!(!excess);
    }

    #[test]
    fn parsers_do_not_panic(bytes in input(), ended in any::<bool>()) {
        let _ = frame(&bytes).map(|body| body.map(parse_request));
        let _ = parse_request(&bytes);
        for item in [ALIVE2, LOOK_UP, Request::Names, Request::Dump, Request::Kill, STOP] {
            let parsed = parse_reply(Expected::from(&item), &bytes, ended);
            prop_assert!(!(ended && parsed == Ok(None)), "waits for more bytes after the end");
        }
    }

    /// Encoders accept everything that parsers return.
    #[test]
    fn what_was_read_can_be_written(bytes in input()) {
        if let Some(Ok(read)) = bytes.get(LENGTH_PREFIX..).map(parse_request) {
            let mut bytes = Vec::new();
            prop_assert_eq!(request(&read, &mut bytes), Ok(()));
            prop_assert!(bytes.len() <= LENGTH_PREFIX + MAX_REQUEST);
            prop_assert_eq!(parse_request(&bytes[LENGTH_PREFIX..]), Ok(read));
        }
    }

    #[test]
    fn utf8_is_what_rust_accepts_as_such(
        bytes in prop_oneof![
            vec(1..=255_u8, 1..5),
            vec(prop::sample::select(UTF8_TURNS.to_vec()), 1..5),
        ],
    ) {
        let text = std::str::from_utf8(&bytes);
        let look_up = parse_request(&[b"z", &bytes[..]].concat()).map(|_| ());
        prop_assert_eq!(look_up, text.map(|_| ()).map_err(|_| Malformed::LookupNameNotUtf8.into()));
        prop_assert_eq!(NodeName::parse_registered(&bytes).is_ok(), text.is_ok());
    }

    #[test]
    fn the_limits_of_names_count_characters(
        letters in vec(prop::sample::select(vec!['a', 'é', '€', '😀']), 245..265),
    ) {
        let name: String = letters.iter().collect();
        prop_assert_eq!(NodeName::parse_registered(name.as_bytes()).is_ok(), letters.len() <= 255);
        let look_up = [b"z", name.as_bytes()].concat();
        prop_assert_eq!(parse_request(&look_up).is_ok(), letters.len() <= 254);
    }
}
