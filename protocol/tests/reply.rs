//! Replies byte by byte, as servers write and clients read them.

use bytes::Bytes;
use pmd_protocol::epmd::encode::{
    KILL_OK, KILL_REFUSED, PORT2_NOT_FOUND, STOP_NOEXIST, STOPPED, alive2_reply, dump_active_line,
    dump_old_line, names_header, names_line, port2_found, request,
};
use pmd_protocol::epmd::reply::parse_reply;
use pmd_protocol::epmd::{Alive2, EncodeError, Expected, Listing, Malformed, Reply, ReplyError, Request};
use pmd_protocol::limits::{LISTING_HEADER, MAX_LISTING, MAX_PORT2_REPLY};
use pmd_protocol::{NodeName, NodeNameError};

fn alive2<'a>(name: &'a str, extra: &'a [u8]) -> Alive2<'a> {
    Alive2 { port: 4711, node_type: 77, protocol: 0, highest_version: 6, lowest_version: 5, name, extra }
}

fn written(item: &Request<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    request(item, &mut bytes).map(|()| bytes)
}

#[test]
fn registrations_from_version_6_on_get_the_32_bit_creation() {
    for version in [6, 7, 65535] {
        assert_eq!(alive2_reply(version, Some(0x6543_2100)).as_bytes(), b"v\0\x65\x43\x21\0");
        assert_eq!(alive2_reply(version, None).as_bytes(), b"\x76\x01\0\0\0\x63");
    }
}

#[test]
fn registrations_below_version_6_get_a_creation_from_1_to_3() {
    for version in [0, 5] {
        assert_eq!(alive2_reply(version, Some(6)).as_bytes(), b"y\0\0\x01");
        assert_eq!(alive2_reply(version, Some(7)).as_bytes(), b"y\0\0\x02");
        assert_eq!(alive2_reply(version, Some(8)).as_bytes(), b"y\0\0\x03");
        assert_eq!(alive2_reply(version, Some(u32::MAX)).as_bytes(), b"y\0\0\x01");
        assert_eq!(alive2_reply(version, None).as_bytes(), b"\x79\x01\0\x63");
    }
}

#[test]
fn a_found_node_is_answered_with_what_it_registered() {
    let mut bytes = Vec::new();
    port2_found(&alive2("rabbit", b"x\0y"), &mut bytes);
    assert_eq!(bytes, b"w\0\x12\x67M\0\0\x06\0\x05\0\x06rabbit\0\x03x\0y");

    let mut longest = Vec::new();
    port2_found(&alive2(&"😀".repeat(255), &[1; 1020]), &mut longest);
    assert_eq!(longest.len(), MAX_PORT2_REPLY);
    let mut cut = Vec::new();
    port2_found(&alive2(&"😀".repeat(256), &[1; 70_000]), &mut cut);
    assert_eq!(cut, longest, "fields that no node can have registered");
}

#[test]
fn the_fixed_replies() {
    assert_eq!(PORT2_NOT_FOUND, *b"w\x01");
    assert_eq!((KILL_OK, KILL_REFUSED), (&b"OK"[..], &b"NO"[..]));
    assert_eq!((STOPPED, STOP_NOEXIST), (&b"STOPPED"[..], &b"NOEXISTSTOPPED"[..]));
}

#[test]
fn the_port_in_a_listing_is_the_configured_number() {
    assert_eq!(names_header(4369), *b"\0\0\x11\x11");
    assert_eq!(names_header(70000), *b"\0\x01\x11\x70");
    assert_eq!(names_header(-5), *b"\xff\xff\xff\xfb");
}

#[test]
fn the_lines_of_listings() {
    let mut lines = Vec::new();
    names_line("rabbit", 25672, &mut lines);
    names_line("", 0, &mut lines);
    assert_eq!(lines, b"name rabbit at port 25672\nname  at port 0\n");
    lines.clear();
    dump_active_line("rabbit", 25672, 5, &mut lines);
    dump_old_line("old", 1, 6, &mut lines);
    let dump =
        "active name     <rabbit> at port 25672, fd = 5\n\0old/unused name <old>, port = 1, fd = 6 \n\0";
    assert_eq!(lines, dump.as_bytes());
}

#[test]
fn requests_as_a_client_writes_them() {
    assert_eq!(
        written(&Request::Alive2(alive2("rabbit", b"e"))),
        Ok(b"\0\x14x\x12\x67M\0\0\x06\0\x05\0\x06rabbit\0\x01e".to_vec())
    );
    assert_eq!(written(&Request::PortPlease2 { name: "rabbit" }), Ok(b"\0\x07zrabbit".to_vec()));
    assert_eq!(written(&Request::Names), Ok(b"\0\x01n".to_vec()));
    assert_eq!(written(&Request::Dump), Ok(b"\0\x01d".to_vec()));
    assert_eq!(written(&Request::Kill), Ok(b"\0\x01k".to_vec()));
    assert_eq!(written(&Request::Stop { name: b"rabbit" }), Ok(b"\0\x07srabbit".to_vec()));
}

#[test]
fn empty_names_are_written_so_that_a_server_accepts_them() {
    let padded = b"\0\x0ex\x12\x67M\0\0\x06\0\x05\0\0\0\0\0".to_vec();
    assert_eq!(written(&Request::Alive2(alive2("", b""))), Ok(padded));
    assert_eq!(written(&Request::Stop { name: b"" }), Ok(b"\0\x02s\0".to_vec()));
}

#[test]
fn what_no_server_reads_is_not_written() {
    let long = "a".repeat(256);
    let refused = [
        (Request::Alive2(alive2(&long, b"")), EncodeError::Name(NodeNameError::TooManyChars)),
        (Request::Alive2(alive2("a\0", b"")), EncodeError::Name(NodeNameError::Nul)),
        (Request::Alive2(alive2("a", &[0; 1021])), EncodeError::ExtraTooLong),
        (Request::PortPlease2 { name: "" }, EncodeError::Lookup(Malformed::LookupNameEmpty)),
        (Request::PortPlease2 { name: "a\0" }, EncodeError::Lookup(Malformed::NulInName)),
        (Request::PortPlease2 { name: &long[1..] }, EncodeError::Lookup(Malformed::LookupNameTooLong)),
        (Request::Stop { name: b"a\0b" }, EncodeError::StopNul),
        (Request::Stop { name: &[b'a'; 3057] }, EncodeError::StopTooLong),
    ];
    for (item, error) in refused {
        assert_eq!(written(&item), Err(error), "{item:?}");
    }
    assert!(written(&Request::Stop { name: &[b'a'; 3056] }).is_ok());
}

fn read(expected: Expected, bytes: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    parse_reply(expected, bytes, false)
}

fn read_to_end(expected: Expected, bytes: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    parse_reply(expected, bytes, true)
}

#[test]
fn both_forms_of_the_registration_reply_are_understood() {
    let wide = Reply::Alive2 { result: 0, creation: 0x6543_2100 };
    assert_eq!(read(Expected::Alive2, b"v\0\x65\x43\x21\0"), Ok(Some((wide, 6))));
    assert_eq!(read(Expected::Alive2, b"y\0\0\x02"), Ok(Some((Reply::Alive2 { result: 0, creation: 2 }, 4))));
    let refused = Reply::Alive2 { result: 1, creation: 99 };
    assert_eq!(read(Expected::Alive2, b"v\x01\0\0\0\x63"), Ok(Some((refused, 6))));
    assert_eq!(read(Expected::Alive2, b"v\0\x65\x43"), Ok(None));
    assert_eq!(read_to_end(Expected::Alive2, b"v\0\x65\x43"), Err(ReplyError::Truncated));
    assert_eq!(read(Expected::Alive2, b"w"), Err(ReplyError::Unexpected));
}

#[test]
fn a_lookup_reply_is_complete_before_the_connection_ends() {
    let sent = alive2("rabbit", b"x\0y");
    let mut bytes = Vec::new();
    port2_found(&sent, &mut bytes);
    let Ok(Some((Reply::Port2Found(found), used))) = read(Expected::Port2, &bytes) else {
        unreachable!("not found in {bytes:?}");
    };
    assert_eq!((found.as_alive2(), used), (sent, bytes.len()));
    assert_eq!(sent.to_registration(), Ok(found));
    for cut in 0..bytes.len() {
        assert_eq!(read(Expected::Port2, &bytes[..cut]), Ok(None));
        let error = if cut == 0 { ReplyError::NoReply } else { ReplyError::Truncated };
        assert_eq!(read_to_end(Expected::Port2, &bytes[..cut]), Err(error));
    }
    for result in [1, 255] {
        assert_eq!(read(Expected::Port2, &[119, result]), Ok(Some((Reply::Port2NotFound, 2))));
    }
    assert_eq!(read(Expected::Port2, b"v"), Err(ReplyError::Unexpected));
}

#[test]
fn lengths_in_a_lookup_reply_are_refused_before_their_bytes_are_there() {
    let head = b"w\0\x12\x67M\0\0\x06\0\x05";
    let reply = |rest: &[u8]| read(Expected::Port2, &[&head[..], rest].concat());
    assert_eq!(reply(b"\x03\xfc"), Ok(None));
    assert_eq!(reply(b"\x03\xfd"), Err(ReplyError::Name(NodeNameError::TooManyBytes)));
    assert_eq!(reply(b"\0\x01\xff"), Err(ReplyError::Name(NodeNameError::NotUtf8)));
    assert_eq!(reply(b"\0\x01a\x03\xfc"), Ok(None));
    assert_eq!(reply(b"\0\x01a\x03\xfd"), Err(ReplyError::ExtraTooLong));
}

#[test]
fn a_listing_ends_with_the_connection() {
    let bytes = b"\xff\xff\xff\xfbname a at port 1\n";
    let listing = || Listing { port: -5, text: Bytes::from_static(b"name a at port 1\n") };
    assert_eq!(read(Expected::Names, bytes), Ok(None));
    assert_eq!(read_to_end(Expected::Names, bytes), Ok(Some((Reply::Names(listing()), bytes.len()))));
    assert_eq!(read_to_end(Expected::Dump, bytes), Ok(Some((Reply::Dump(listing()), bytes.len()))));
    let empty = Listing { port: 4369, text: Bytes::new() };
    assert_eq!(read_to_end(Expected::Names, b"\0\0\x11\x11"), Ok(Some((Reply::Names(empty), 4))));
    assert_eq!(read_to_end(Expected::Names, b"\0\0\x11"), Err(ReplyError::Truncated));
    assert_eq!(read_to_end(Expected::Dump, b""), Err(ReplyError::NoReply));
}

#[test]
fn an_endless_listing_is_refused() {
    let mut bytes = vec![b'\n'; LISTING_HEADER + MAX_LISTING];
    assert_eq!(read(Expected::Names, &bytes), Ok(None));
    bytes.push(b'\n');
    assert_eq!(read(Expected::Names, &bytes), Err(ReplyError::ListingTooLong));
    assert_eq!(read_to_end(Expected::Dump, &bytes), Err(ReplyError::ListingTooLong));
}

#[test]
fn lines_are_read_as_erl_reads_them() {
    let text = b"name a at port 1\n\
        name a b at port 2\n\
        name  at port 3\n\
        \n\
        name \xff at port 4\n\
        name c at port 65536\n\
        name d at port -1\n\
        name e at port 5x\n\
        name f at port\n\
        junk\n\
        name g@h\xc3\xa9 at port 65535\n\
        name unfinished at port 6";
    let listing = Listing { port: 4369, text: Bytes::from_static(text) };
    let entries: Vec<_> = listing.entries().map(|entry| (entry.name, entry.port)).collect();
    assert_eq!(entries, [("a", 1), ("", 3), ("g@hé", 65535)]);
}

#[test]
fn kill_and_stop_answer_in_words() {
    let killed = |killed| Ok(Some((Reply::Kill { killed }, 2)));
    assert_eq!(read(Expected::Kill, b"OK"), killed(true));
    assert_eq!(read(Expected::Kill, b"NO"), killed(false));
    assert_eq!(read(Expected::Kill, b"N"), Ok(None));
    assert_eq!(read(Expected::Kill, b"ON"), Err(ReplyError::Unexpected));
    assert_eq!(read(Expected::Stop, b"STOPPED"), Ok(Some((Reply::Stop { stopped: true }, 7))));
    assert_eq!(read(Expected::Stop, STOP_NOEXIST), Ok(Some((Reply::Stop { stopped: false }, 14))));
    assert_eq!(read(Expected::Stop, b"NOEXIST"), Ok(None));
    assert_eq!(read_to_end(Expected::Stop, b"NOEXIST"), Ok(Some((Reply::Stop { stopped: false }, 7))));
    assert_eq!(read_to_end(Expected::Stop, b"NOEXISTS"), Err(ReplyError::Truncated));
}

#[test]
fn each_request_has_its_reply() {
    let rows = [
        (Request::Alive2(alive2("a", b"")), Expected::Alive2),
        (Request::PortPlease2 { name: "a" }, Expected::Port2),
        (Request::Names, Expected::Names),
        (Request::Dump, Expected::Dump),
        (Request::Kill, Expected::Kill),
        (Request::Stop { name: b"a" }, Expected::Stop),
    ];
    for (item, expected) in rows {
        assert_eq!(Expected::from(&item), expected);
    }
}

#[test]
fn a_registration_is_only_made_of_a_name() {
    assert_eq!(alive2("a\0", b"").to_registration(), Err(NodeNameError::Nul));
    assert_eq!(
        alive2("é", b"x").to_registration().map(|made| made.name),
        NodeName::parse_registered("é".as_bytes())
    );
}
