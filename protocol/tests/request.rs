//! Requests byte by byte: framing, each opcode and the order of the checks, as in stock epmd.

use pmd_protocol::epmd::parse::{frame, parse_request, read_limit};
use pmd_protocol::epmd::{Alive2, FramingError, Malformed, Refusal, Request, RequestError};
use pmd_protocol::limits::{MAX_FIRST_READ, MAX_REQUEST};

/// The body of an ALIVE2_REQ with any lengths and tail.
struct Raw<'a> {
    highest_version: u16,
    name_length: usize,
    name: &'a [u8],
    extra_length: usize,
    extra: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Raw<'a> {
    fn new(name: &'a [u8], extra: &'a [u8]) -> Self {
        Self {
            highest_version: 6,
            name_length: name.len(),
            name,
            extra_length: extra.len(),
            extra,
            tail: b"",
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        [
            b"x\x12\x34M\x07",
            &self.highest_version.to_be_bytes()[..],
            b"\x00\x05",
            &length(self.name_length),
            self.name,
            &length(self.extra_length),
            self.extra,
            self.tail,
        ]
        .concat()
    }
}

fn registered<'a>(name: &'a str, extra: &'a [u8]) -> Result<Request<'a>, RequestError> {
    Ok(Request::Alive2(Alive2 {
        port: 0x1234,
        node_type: b'M',
        protocol: 7,
        highest_version: 6,
        lowest_version: 5,
        name,
        extra,
    }))
}

fn closed<T>(why: Malformed) -> Result<T, RequestError> {
    Err(RequestError::Malformed(why))
}

fn refused<T>(refusal: Refusal) -> Result<T, RequestError> {
    Err(RequestError::Refused { highest_version: 6, refusal })
}

#[test]
fn a_request_is_complete_when_its_length_says_so() {
    for part in [&b""[..], b"\0", b"\0\x03", b"\0\x03z", b"\0\x03za"] {
        assert_eq!(frame(part), Ok(None), "{part:?}");
    }
    assert_eq!(frame(b"\0\x03zab"), Ok(Some(&b"zab"[..])));
}

#[test]
fn lengths_from_1_to_3057_are_accepted_and_others_refused_at_once() {
    assert_eq!(frame(b"\0\0"), Err(FramingError::BadLength(0)));
    assert_eq!(frame(b"\0\x01"), Ok(None));
    assert_eq!(frame(b"\x0b\xf1"), Ok(None));
    assert_eq!(frame(b"\x0b\xf2"), Err(FramingError::BadLength(3058)));
    assert_eq!(frame(b"\xff\xff"), Err(FramingError::BadLength(65535)));

    let mut longest = b"\x0b\xf1".to_vec();
    longest.resize(MAX_FIRST_READ, b'n');
    assert_eq!(frame(&longest).map(|body| body.map(<[u8]>::len)), Ok(Some(MAX_REQUEST)));
}

#[test]
fn bytes_beyond_the_request_spoil_it() {
    assert_eq!(frame(b"\0\x01n!"), Err(FramingError::Excess { announced: 1, got: 2 }));
    assert_eq!(frame(b"\0\x01n\0\x01n"), Err(FramingError::Excess { announced: 1, got: 4 }));
}

#[test]
fn a_bad_length_counts_before_excess_bytes() {
    assert_eq!(frame(b"\0\0nnn"), Err(FramingError::BadLength(0)));
}

#[test]
fn once_the_length_is_known_no_more_than_the_request_is_read() {
    assert_eq!(read_limit(b""), 3059);
    assert_eq!(read_limit(b"\0"), 3058);
    assert_eq!(read_limit(b"\0\x03"), 3);
    assert_eq!(read_limit(b"\0\x03za"), 1);
    assert_eq!(read_limit(b"\0\x03zab"), 0);
    assert_eq!(read_limit(b"\0\x03zabc"), 0);
    assert_eq!(read_limit(b"\0\0"), 0);
}

#[test]
fn unknown_opcodes_are_malformed() {
    for opcode in [97, 112, 78, 0, 255, 121, 119, 118] {
        assert_eq!(parse_request(&[opcode, 1, 2]), closed(Malformed::UnknownOpcode(opcode)));
    }
    assert_eq!(parse_request(b""), closed(Malformed::Empty));
}

#[test]
fn names_dump_and_kill_ignore_their_body() {
    for body in [&b""[..], b"x", b"\0\0"] {
        assert_eq!(parse_request(&[b"n", body].concat()), Ok(Request::Names));
        assert_eq!(parse_request(&[b"d", body].concat()), Ok(Request::Dump));
        assert_eq!(parse_request(&[b"k", body].concat()), Ok(Request::Kill));
    }
}

#[test]
fn a_registration_has_all_its_fields() {
    assert_eq!(parse_request(&Raw::new(b"rabbit", b"").bytes()), registered("rabbit", b""));
    assert_eq!(parse_request(&Raw::new(b"r", b"\0e\0").bytes()), registered("r", b"\0e\0"));
    let unusual = "a b\n@\u{1}\u{ffff}";
    assert_eq!(parse_request(&Raw::new(unusual.as_bytes(), b"").bytes()), registered(unusual, b""));
}

#[test]
fn bytes_after_the_extra_are_ignored() {
    let raw = Raw { tail: b"whatever\0", ..Raw::new(b"r", b"e") };
    assert_eq!(parse_request(&raw.bytes()), registered("r", b"e"));
}

#[test]
fn an_empty_name_needs_something_after_it() {
    assert_eq!(parse_request(&Raw::new(b"", b"").bytes()), closed(Malformed::Alive2TooShort));
    assert_eq!(parse_request(&Raw::new(b"", b"e").bytes()), registered("", b"e"));
    let padded = Raw { tail: b"\0", ..Raw::new(b"", b"") };
    assert_eq!(parse_request(&padded.bytes()), registered("", b""));
}

#[test]
fn a_registration_of_13_bytes_or_less_is_too_short() {
    let whole = Raw::new(b"ab", b"").bytes();
    for length in 1..=13 {
        assert_eq!(parse_request(&whole[..length]), closed(Malformed::Alive2TooShort), "{length}");
    }
    assert_eq!(parse_request(&whole[..14]), closed(Malformed::Alive2NameBeyondPacket));
}

#[test]
fn the_name_and_the_length_after_it_lie_within_the_request() {
    for name_length in [4, 5, 65535] {
        let raw = Raw { name_length, ..Raw::new(b"abc", b"") };
        assert_eq!(parse_request(&raw.bytes()), closed(Malformed::Alive2NameBeyondPacket), "{name_length}");
    }
}

#[test]
fn a_name_that_is_longer_than_it_says_is_taken_for_the_extra_length() {
    let raw = Raw { name_length: 1, ..Raw::new(b"abc", b"") };
    assert_eq!(parse_request(&raw.bytes()), closed(Malformed::Alive2ExtraBeyondPacket));
}

#[test]
fn the_extra_lies_within_the_request() {
    for extra_length in [2, 65535] {
        let raw = Raw { extra_length, ..Raw::new(b"abc", b"d") };
        assert_eq!(parse_request(&raw.bytes()), closed(Malformed::Alive2ExtraBeyondPacket));
    }
}

#[test]
fn nul_in_a_registered_name_closes() {
    for name in [&b"a\0b"[..], b"a\0", b"\0"] {
        assert_eq!(parse_request(&Raw::new(name, b"").bytes()), closed(Malformed::NulInName), "{name:?}");
    }
}

#[test]
fn names_and_extras_beyond_their_limits_are_refused() {
    let wide = "😀".repeat(255);
    assert_eq!(wide.len(), 1020);
    assert_eq!(parse_request(&Raw::new(wide.as_bytes(), b"").bytes()), registered(&wide, b""));
    let chars = "a".repeat(256);
    assert_eq!(parse_request(&Raw::new(chars.as_bytes(), b"").bytes()), refused(Refusal::NameTooManyChars));
    let bytes = "a".repeat(1021);
    assert_eq!(parse_request(&Raw::new(bytes.as_bytes(), b"").bytes()), refused(Refusal::NameTooManyBytes));
    assert_eq!(parse_request(&Raw::new(b"\xc0\x80", b"").bytes()), refused(Refusal::NameNotUtf8));
    assert_eq!(parse_request(&Raw::new(b"a", &[7; 1020]).bytes()), registered("a", &[7; 1020]));
    assert_eq!(parse_request(&Raw::new(b"a", &[7; 1021]).bytes()), refused(Refusal::ExtraTooLong));
}

#[test]
fn a_refusal_carries_the_version_that_selects_its_form() {
    for highest_version in [0, 5, 6, 65535] {
        let raw = Raw { highest_version, ..Raw::new(b"\xff", b"") };
        let refusal = Refusal::NameNotUtf8;
        assert_eq!(parse_request(&raw.bytes()), Err(RequestError::Refused { highest_version, refusal }));
    }
}

/// Each registration breaks the rule it is listed for, and as many later rules as it can.
#[test]
fn the_first_failing_check_decides() {
    let nul_and_long = [&b"\xff\0"[..], &[b'a'; 1020]].concat();
    let long_and_not_utf8 = [b'\xff'; 1021];
    let not_utf8_and_many = [&[b'a'; 300][..], b"\xff"].concat();
    let long_extra = [7; 1021];
    let rows = [
        (
            Raw { name_length: 2000, extra_length: 4000, ..Raw::new(&nul_and_long, &long_extra) },
            Malformed::Alive2ExtraBeyondPacket.into(),
        ),
        (
            Raw { name_length: 2044, ..Raw::new(&nul_and_long, &long_extra) },
            Malformed::Alive2NameBeyondPacket.into(),
        ),
        (
            Raw { extra_length: 1022, ..Raw::new(&nul_and_long, &long_extra) },
            Malformed::Alive2ExtraBeyondPacket.into(),
        ),
        (Raw::new(&nul_and_long, &long_extra), Malformed::NulInName.into()),
        (
            Raw::new(&long_and_not_utf8, &long_extra),
            RequestError::Refused { highest_version: 6, refusal: Refusal::NameTooManyBytes },
        ),
        (
            Raw::new(&not_utf8_and_many, &long_extra),
            RequestError::Refused { highest_version: 6, refusal: Refusal::NameNotUtf8 },
        ),
        (
            Raw::new(&[b'a'; 256], &long_extra),
            RequestError::Refused { highest_version: 6, refusal: Refusal::NameTooManyChars },
        ),
        (
            Raw::new(b"a", &long_extra),
            RequestError::Refused { highest_version: 6, refusal: Refusal::ExtraTooLong },
        ),
    ];
    for (raw, error) in rows {
        assert_eq!(parse_request(&raw.bytes()), Err(error));
    }
}

fn lookup(name: &[u8]) -> Vec<u8> {
    [b"z", name].concat()
}

#[test]
fn a_lookup_may_end_with_one_nul() {
    let found = Ok(Request::PortPlease2 { name: "rabbit" });
    assert_eq!(parse_request(b"zrabbit"), found);
    assert_eq!(parse_request(b"zrabbit\0"), found);
    for name in [&b"rabbit\0\0"[..], b"ra\0bbit", b"\0rabbit", b"\0\0"] {
        assert_eq!(parse_request(&lookup(name)), closed(Malformed::NulInName), "{name:?}");
    }
}

#[test]
fn a_lookup_needs_a_name() {
    assert_eq!(parse_request(b"z"), closed(Malformed::LookupNameEmpty));
    assert_eq!(parse_request(b"z\0"), closed(Malformed::LookupNameEmpty));
}

#[test]
fn names_of_254_characters_can_be_looked_up_but_not_of_255() {
    for letter in ["a", "é", "€", "😀"] {
        let longest = letter.repeat(254);
        assert_eq!(parse_request(&lookup(longest.as_bytes())), Ok(Request::PortPlease2 { name: &longest }));
        let longer = letter.repeat(255);
        assert_eq!(parse_request(&lookup(longer.as_bytes())), closed(Malformed::LookupNameTooLong));
    }
    let terminated = [&b"z"[..], &[b'a'; 254], b"\0"].concat();
    assert!(parse_request(&terminated).is_ok());
}

#[test]
fn utf8_is_checked_as_in_the_table_of_rfc_3629() {
    let good = ["\u{1}", "\u{80}", "\u{7ff}", "\u{800}", "\u{d7ff}", "\u{e000}", "\u{fffe}", "\u{10ffff}"];
    for name in good {
        assert_eq!(parse_request(&lookup(name.as_bytes())), Ok(Request::PortPlease2 { name }));
        assert_eq!(parse_request(&Raw::new(name.as_bytes(), b"").bytes()), registered(name, b""));
    }
    let bad: [&[u8]; 13] = [
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\x80",
        b"a\xbf",
        b"\xe2\x82",
        b"\xfe",
        b"\xff",
    ];
    for name in bad {
        assert_eq!(parse_request(&lookup(name)), closed(Malformed::LookupNameNotUtf8), "{name:x?}");
        assert_eq!(parse_request(&Raw::new(name, b"").bytes()), refused(Refusal::NameNotUtf8), "{name:x?}");
    }
}

#[test]
fn a_stop_names_a_c_string() {
    assert_eq!(parse_request(b"s"), closed(Malformed::StopWithoutName));
    assert_eq!(parse_request(b"sbeta"), Ok(Request::Stop { name: b"beta" }));
    assert_eq!(parse_request(b"sbeta\0junk"), Ok(Request::Stop { name: b"beta" }));
    assert_eq!(parse_request(b"s\xff\xfe"), Ok(Request::Stop { name: b"\xff\xfe" }));
    assert_eq!(parse_request(b"s\0"), Ok(Request::Stop { name: b"" }));
}
