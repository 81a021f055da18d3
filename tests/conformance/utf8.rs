//! The byte strings that are valid names: well-formed UTF-8, checked in the same manner by registration and lookup.

use crate::battery::{Case, case};
use crate::wire::{alive2, port2};

const ACCEPTED: [(&str, &[u8]); 18] = [
    ("control characters", b"\x01\x1F\x7F"),
    ("ascii", b"plain_Name-1.2"),
    ("U+0080", b"\xC2\x80"),
    ("U+00E9", b"caf\xC3\xA9"),
    ("U+07FF", b"\xDF\xBF"),
    ("U+0800", b"\xE0\xA0\x80"),
    ("U+1000", b"\xE1\x80\x80"),
    ("U+CFFF", b"\xEC\xBF\xBF"),
    ("U+D7FF", b"\xED\x9F\xBF"),
    ("U+E000", b"\xEE\x80\x80"),
    ("U+FEFF", b"\xEF\xBB\xBF"),
    ("U+FFFD", b"\xEF\xBF\xBD"),
    ("U+FFFE", b"\xEF\xBF\xBE"),
    ("U+FFFF", b"\xEF\xBF\xBF"),
    ("U+10000", b"\xF0\x90\x80\x80"),
    ("U+40000", b"\xF1\x80\x80\x80"),
    ("U+FFFFF", b"\xF3\xBF\xBF\xBF"),
    ("U+10FFFF", b"\xF4\x8F\xBF\xBF"),
];

const REJECTED: [(&str, &[u8]); 34] = [
    ("stray continuation 80", b"\x80"),
    ("stray continuation BF", b"a\xBFb"),
    ("lead C0", b"\xC0\x80"),
    ("lead C0, AF", b"\xC0\xAF"),
    ("lead C1", b"\xC1\xBF"),
    ("overlong, three bytes", b"\xE0\x80\x80"),
    ("overlong, three bytes, last", b"\xE0\x9F\xBF"),
    ("overlong, four bytes", b"\xF0\x80\x80\x80"),
    ("overlong, four bytes, last", b"\xF0\x8F\xBF\xBF"),
    ("surrogate D800", b"\xED\xA0\x80"),
    ("surrogate DB7F", b"\xED\xAD\xBF"),
    ("surrogate DC00", b"\xED\xB0\x80"),
    ("surrogate DFFF", b"\xED\xBF\xBF"),
    ("surrogate pair", b"\xED\xA0\xBD\xED\xB8\x80"),
    ("U+110000", b"\xF4\x90\x80\x80"),
    ("F4 BF", b"\xF4\xBF\xBF\xBF"),
    ("lead F5", b"\xF5\x80\x80\x80"),
    ("lead F7", b"\xF7\xBF\xBF\xBF"),
    ("lead F8", b"\xF8\x88\x80\x80\x80"),
    ("lead FC", b"\xFC\x84\x80\x80\x80\x80"),
    ("FE", b"\xFE"),
    ("FF", b"a\xFF"),
    ("cut after C3", b"caf\xC3"),
    ("cut after E2", b"\xE2"),
    ("cut after E2 82", b"\xE2\x82"),
    ("cut after F0", b"\xF0"),
    ("cut after F0 9F", b"\xF0\x9F"),
    ("cut after F0 9F 98", b"\xF0\x9F\x98"),
    ("C3 and ascii", b"\xC3a"),
    ("E2 82 and ascii", b"\xE2\x82a"),
    ("E2 and ascii", b"\xE2aa"),
    ("F0 9F 98 and ascii", b"\xF0\x9F\x98a"),
    ("C3 C3", b"\xC3\xC3\xA9"),
    ("good and one byte more", b"\xC3\xA9\x80"),
];

pub(crate) fn cases() -> Vec<Case> {
    let lines =
        |end: &str| -> Vec<String> { REJECTED.iter().map(|(what, _)| format!("{what}: {end}")).collect() };
    let refused = lines(r"v\x01\x00\x00\x00c");
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let ignored = lines("eof");
    let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
    let found: Vec<String> = ACCEPTED.iter().map(|(what, _)| format!("{what}: found")).collect();
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    vec![
        case("well-formed names are registered and found").expect(&found).play(|t| {
            let _nodes: Vec<_> = ACCEPTED.iter().map(|(_, name)| t.register(name)).collect();
            for (what, name) in ACCEPTED {
                let client = t.dial(what);
                client.send(&port2(name));
                let answer = client.all();
                client.note(if answer.get(12..12 + name.len()) == Some(name) { "found" } else { "lost" });
            }
        }),
        case("other byte strings are refused at registration").expect(&refused).play(|t| {
            let mut kept = Vec::new();
            for (what, name) in REJECTED {
                let peer = t.dial(what);
                peer.send(&alive2(name));
                peer.reads_alive2_reply();
                kept.push(peer);
            }
        }),
        case("other byte strings are not looked up").expect(&ignored).play(|t| {
            for (what, name) in REJECTED {
                t.ask(what, &port2(name));
            }
        }),
        case("characters are counted, not bytes")
            .expect(&[
                r"255 of two bytes: v\x00<creation>",
                r"256 of two bytes: v\x01\x00\x00\x00c",
                r"255 of three bytes: v\x00<creation>",
                r"256 of three bytes: v\x01\x00\x00\x00c",
                r"255 of mixed: v\x00<creation>",
                r"256 of mixed: v\x01\x00\x00\x00c",
            ])
            .play(|t| {
                let mixed = |count: usize| "a\u{E9}\u{20AC}\u{1F600}".chars().cycle().take(count).collect();
                let rows: [(&str, String); 6] = [
                    ("255 of two bytes", "\u{E9}".repeat(255)),
                    ("256 of two bytes", "\u{E9}".repeat(256)),
                    ("255 of three bytes", "\u{20AC}".repeat(255)),
                    ("256 of three bytes", "\u{20AC}".repeat(256)),
                    ("255 of mixed", mixed(255)),
                    ("256 of mixed", mixed(256)),
                ];
                for (what, name) in &rows {
                    let peer = t.dial(what);
                    peer.send(&alive2(name));
                    peer.reads_alive2_reply();
                }
            }),
    ]
}
