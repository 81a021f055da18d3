//! PORT_PLEASE2_REQ: the names that are accepted, and the response.

use crate::battery::{Case, case, table};
use crate::peer::printable;
use crate::wire::{Alive2, packet, port2};

const UNKNOWN: &str = r"w\x01 eof";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        table(
            "unknown names",
            vec![
                ("plain", port2("nobody"), UNKNOWN.into()),
                ("one trailing NUL", port2("nobody\0"), UNKNOWN.into()),
                ("a control character", port2("\x01"), UNKNOWN.into()),
                ("254 characters", port2("a".repeat(254)), UNKNOWN.into()),
                ("254 characters and NUL", port2("a".repeat(254) + "\0"), UNKNOWN.into()),
                ("254 characters of four bytes", port2("\u{1F600}".repeat(254)), UNKNOWN.into()),
            ],
        ),
        table(
            "names that are not looked up",
            vec![
                ("none", packet("z"), "eof".into()),
                ("only NUL", port2("\0"), "eof".into()),
                ("two NULs", port2("\0\0"), "eof".into()),
                ("NUL in front", port2("\0node"), "eof".into()),
                ("NUL inside", port2("no\0de"), "eof".into()),
                ("NUL inside and at the end", port2("no\0de\0"), "eof".into()),
                ("two trailing NULs", port2("node\0\0"), "eof".into()),
                ("bad UTF-8", port2(b"no\xFFde"), "eof".into()),
                ("cut UTF-8", port2(b"node\xC3"), "eof".into()),
                ("cut UTF-8 and NUL", port2(b"node\xC3\0"), "eof".into()),
                ("255 characters", port2("a".repeat(255)), "eof".into()),
                ("255 characters and NUL", port2("a".repeat(255) + "\0"), "eof".into()),
                ("255 characters of four bytes", port2("\u{1F600}".repeat(255)), "eof".into()),
                ("1021 bytes", port2("a".repeat(1021)), "eof".into()),
                ("the largest packet", port2("a".repeat(3056)), "eof".into()),
            ],
        ),
        case("a registered name, with and without terminator")
            .expect(&[
                r"plain: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof",
                r"NUL: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof",
                r"other case: w\x01 eof",
                r"prefix: w\x01 eof",
                r"with host: w\x01 eof",
            ])
            .play(|t| {
                let _node = t.register("node");
                t.ask("plain", &port2("node"));
                t.ask("NUL", &port2("node\0"));
                t.ask("other case", &port2("Node"));
                t.ask("prefix", &port2("nod"));
                t.ask("with host", &port2("node@localhost"));
            }),
        case("a name is found from its registration to its end")
            .expect(&[
                r"before: w\x01 eof",
                r"during: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof",
                r"after: w\x01 eof",
                r"anew: w\x00\x0f\xa1M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof",
            ])
            .play(|t| {
                t.ask("before", &port2("node"));
                let node = t.register("node");
                t.ask("during", &port2("node"));
                drop(node);
                t.wait_until_unregistered(b"node");
                t.ask("after", &port2("node"));
                let _node = t.register_as(&Alive2::new("node").port(4001));
                t.ask("anew", &port2("node"));
            }),
        // Stock counts the terminator, so the longest names can be registered but not found.
        case("the longest names").expect(&["254: found whole", "254: in one segment", "255: eof"]).play(
            |t| {
                let longest = Alive2::new("\u{1F600}".repeat(254)).extra([0xEE; 1020]);
                let _found = t.register_as(&longest);
                let _lost = t.register("b".repeat(255));
                let client = t.dial("254");
                client.send(&port2(&longest.name));
                let answer = client.all();
                let wanted =
                    [&b"w\0\x0f\xa0M\0\0\x06\0\x05\x03\xf8"[..], &longest.name, b"\x03\xfc", &longest.extra]
                        .concat();
                assert_eq!(wanted.len(), 14 + 1016 + 1020);
                client.note(&if answer == wanted { "found whole".to_owned() } else { printable(&answer) });
                client.counts_segments();
                t.ask("255", &port2("b".repeat(255)));
            },
        ),
        case("an answer that is the end of the connection")
            .expect(&["unknown: in one segment", "known: in one segment"])
            .play(|t| {
                let _node = t.register_as(&Alive2::new("node").extra("extra"));
                for (who, name) in [("unknown", "nobody"), ("known", "node")] {
                    let client = t.dial(who);
                    client.send(&port2(name));
                    client.all();
                    client.counts_segments();
                }
            }),
    ]
}
