//! The codecs: the results that a connection yields, in order, including its end.

use bytes::{Bytes, BytesMut};
use pmd_protocol::epmd::encode::alive2_reply;
use pmd_protocol::epmd::{
    Alive2, ClientCodec, ClientError, FramingError, Malformed, OwnedRequest, Refusal, Reply, ReplyError,
    Request, RequestError, ServerCodec, ServerError, ServerReply,
};
use tokio_util::codec::{Decoder, Encoder};

const ALIVE2: Alive2<'static> = Alive2 {
    port: 4711,
    node_type: 77,
    protocol: 0,
    highest_version: 6,
    lowest_version: 5,
    name: "rabbit",
    extra: b"x",
};

/// A server-side connection that receives one part per read.
#[derive(Default)]
struct Served {
    codec: ServerCodec,
    buffer: BytesMut,
}

impl Served {
    fn receives(&mut self, part: &[u8]) -> Result<Option<OwnedRequest>, ServerError> {
        self.buffer.extend_from_slice(part);
        self.codec.decode(&mut self.buffer)
    }

    fn ends(&mut self) -> Result<Option<OwnedRequest>, ServerError> {
        self.codec.decode_eof(&mut self.buffer)
    }
}

/// A client-side connection that has sent a request.
struct Asked {
    codec: ClientCodec,
    buffer: BytesMut,
}

impl Asked {
    fn for_a(item: Request<'_>) -> Self {
        let mut codec = ClientCodec::default();
        let mut sent = BytesMut::new();
        assert!(codec.encode(item, &mut sent).is_ok() && !sent.is_empty());
        Self { codec, buffer: BytesMut::new() }
    }

    fn receives(&mut self, part: &[u8]) -> Result<Option<Reply>, ClientError> {
        self.buffer.extend_from_slice(part);
        self.codec.decode(&mut self.buffer)
    }

    fn ends(&mut self) -> Result<Option<Reply>, ClientError> {
        self.codec.decode_eof(&mut self.buffer)
    }
}

#[test]
fn a_server_reads_one_request() {
    let mut served = Served::default();
    assert!(matches!(served.receives(b"\0\x07zrab"), Ok(None)));
    match served.receives(b"bit") {
        Ok(Some(OwnedRequest::PortPlease2 { name })) => assert_eq!(name.as_str(), "rabbit"),
        other => unreachable!("{other:?}"),
    }
    assert!(matches!(served.receives(b""), Ok(None)));
    assert!(matches!(served.ends(), Ok(None)));
}

#[test]
fn surplus_in_the_part_that_brings_the_length_spoils_the_request() {
    let excess = |got| ServerError::Frame(FramingError::Excess { announced: 1, got });
    assert_eq!(
        Served::default().receives(b"\0\x01n!").map_err(|error| error.to_string()),
        Err(excess(2).to_string())
    );
    let mut served = Served::default();
    assert!(matches!(served.receives(b"\0"), Ok(None)));
    assert!(matches!(
        served.receives(b"\x01n!"),
        Err(ServerError::Frame(FramingError::Excess { announced: 1, got: 2 }))
    ));
}

#[test]
fn surplus_that_comes_later_does_not() {
    for first in [&b"\0\x02"[..], b"\0\x02z"] {
        let mut served = Served::default();
        assert!(matches!(served.receives(first), Ok(None)));
        let rest = b"\0\x02za\0\x01n".strip_prefix(first).unwrap_or_default();
        assert!(matches!(served.receives(rest), Ok(Some(OwnedRequest::PortPlease2 { .. }))));
        assert!(matches!(served.receives(b""), Err(ServerError::AfterRequest)));
    }
}

#[test]
fn a_byte_on_a_registered_connection_is_an_error() {
    let mut served = Served::default();
    let mut bytes = BytesMut::new();
    assert!(ClientCodec::default().encode(Request::Alive2(ALIVE2), &mut bytes).is_ok());
    match served.receives(&bytes) {
        Ok(Some(OwnedRequest::Alive2(registration))) => assert_eq!(registration.as_alive2(), ALIVE2),
        other => unreachable!("{other:?}"),
    }
    assert!(matches!(served.receives(&bytes), Err(ServerError::AfterRequest)));
}

#[test]
fn a_refused_registration_uses_up_the_connection_too() {
    let refused = b"\0\x0fx\0\x01M\0\0\x05\0\x05\0\x01\xff\0\x01e";
    let mut served = Served::default();
    assert!(matches!(
        served.receives(refused),
        Err(ServerError::Request(RequestError::Refused {
            highest_version: 5,
            refusal: Refusal::NameNotUtf8
        }))
    ));
    assert!(matches!(served.receives(b""), Ok(None)), "the connection stays open until the peer closes it");
    assert!(matches!(served.receives(b"\0\x01n"), Err(ServerError::AfterRequest)));
}

#[test]
fn malformed_requests_and_lengths_are_errors() {
    assert!(matches!(
        Served::default().receives(b"\0\x01?"),
        Err(ServerError::Request(RequestError::Malformed(Malformed::UnknownOpcode(b'?'))))
    ));
    assert!(matches!(
        Served::default().receives(b"\x0b\xf2"),
        Err(ServerError::Frame(FramingError::BadLength(3058)))
    ));
}

#[test]
fn an_end_in_the_middle_of_a_request_is_an_error() {
    for part in [&b"\0"[..], b"\0\x05", b"\0\x05zab"] {
        let mut served = Served::default();
        assert!(matches!(served.receives(part), Ok(None)));
        assert!(matches!(served.ends(), Err(ServerError::Truncated)));
        assert!(matches!(served.ends(), Ok(None)), "reported once");
    }
    assert!(matches!(Served::default().ends(), Ok(None)), "nothing had arrived");
}

#[test]
fn a_request_is_read_even_if_the_end_comes_with_it() {
    let mut served = Served::default();
    served.buffer.extend_from_slice(b"\0\x01n");
    assert!(matches!(served.ends(), Ok(Some(OwnedRequest::Names))));
    assert!(matches!(served.ends(), Ok(None)));
}

#[test]
fn a_server_writes_replies_without_a_length() {
    let rows: [(ServerReply<'_>, &[u8]); 8] = [
        (ServerReply::Alive2(alive2_reply(6, None)), b"v\x01\0\0\0\x63"),
        (ServerReply::Port2Found(&ALIVE2), b"w\0\x12\x67M\0\0\x06\0\x05\0\x06rabbit\0\x01x"),
        (ServerReply::Port2NotFound, b"w\x01"),
        (ServerReply::Listing { port: 4369, text: b"name a at port 1\n" }, b"\0\0\x11\x11name a at port 1\n"),
        (ServerReply::Kill { killed: true }, b"OK"),
        (ServerReply::Kill { killed: false }, b"NO"),
        (ServerReply::Stop { stopped: true }, b"STOPPED"),
        (ServerReply::Stop { stopped: false }, b"NOEXISTSTOPPED"),
    ];
    for (reply, bytes) in rows {
        let mut written = BytesMut::new();
        assert!(ServerCodec::default().encode(reply, &mut written).is_ok());
        assert_eq!(written, bytes, "{reply:?}");
    }
}

#[test]
fn a_client_sends_one_request() {
    let mut codec = ClientCodec::default();
    let mut sent = BytesMut::new();
    assert!(matches!(
        codec.encode(Request::PortPlease2 { name: "" }, &mut sent),
        Err(ClientError::Request(_))
    ));
    assert!(codec.encode(OwnedRequest::Stop { name: Bytes::from_static(b"a") }, &mut sent).is_ok());
    assert!(matches!(codec.encode(Request::Names, &mut sent), Err(ClientError::SecondRequest)));
    assert_eq!(sent, &b"\0\x02sa"[..], "only the accepted request");
}

#[test]
fn nothing_follows_a_registration_reply() {
    let mut asked = Asked::for_a(Request::Alive2(ALIVE2));
    assert!(matches!(asked.receives(b"v\0\0\0"), Ok(None)));
    assert!(matches!(asked.receives(b"\0\x07"), Ok(Some(Reply::Alive2 { result: 0, creation: 7 }))));
    assert!(matches!(asked.receives(b""), Ok(None)));
    assert!(matches!(asked.receives(b"!"), Err(ClientError::Unasked)));
}

#[test]
fn a_listing_is_read_to_the_end_of_the_connection() {
    let mut asked = Asked::for_a(Request::Names);
    assert!(matches!(asked.receives(b"\0\0\x11"), Ok(None)));
    assert!(matches!(asked.receives(b"\x11name a at port 1\n"), Ok(None)));
    match asked.ends() {
        Ok(Some(Reply::Names(listing))) => assert_eq!((listing.port, listing.entries().count()), (4369, 1)),
        other => unreachable!("{other:?}"),
    }
    assert!(matches!(asked.ends(), Ok(None)));
}

#[test]
fn a_close_without_a_reply_is_not_a_truncated_reply() {
    let mut asked = Asked::for_a(Request::Dump);
    assert!(matches!(asked.ends(), Err(ClientError::Reply(ReplyError::NoReply))));
    assert!(matches!(asked.ends(), Ok(None)), "reported once");
    let mut asked = Asked::for_a(Request::PortPlease2 { name: "a" });
    assert!(matches!(asked.receives(b"w\0\x12"), Ok(None)));
    assert!(matches!(asked.ends(), Err(ClientError::Reply(ReplyError::Truncated))));
}

#[test]
fn bytes_before_the_request_are_an_error() {
    let mut codec = ClientCodec::default();
    assert!(matches!(codec.decode(&mut BytesMut::new()), Ok(None)));
    assert!(matches!(codec.decode(&mut BytesMut::from("w")), Err(ClientError::Unasked)));
}
