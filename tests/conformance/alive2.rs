//! ALIVE2_REQ: the fields, the order of the checks, and the two forms of the response.

use crate::battery::{Case, Divergence, case};
use crate::peer::{Peer, wait_until_dropped};
use crate::stage::{Node, Stage};
use crate::wire::{self, Alive2, alive2, packet, port2};

/// A refusal in the form for version 6, and in the one for older versions.
const REFUSED: &str = r"v\x01\x00\x00\x00c";
const REFUSED_BEFORE_6: &str = r"y\x01\x00c";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = answers();
    cases.extend(structure());
    cases.extend(refusals());
    cases.extend(duplicates());
    cases.extend(odd_names());
    cases.extend(undeliverable());
    cases
}

/// Sends a registration, and notes the response and whether the connection is still open.
fn attempt(t: &Stage<'_>, who: &str, request: &[u8]) -> Peer {
    let peer = t.dial(who);
    peer.send(request);
    peer.reads_alive2_reply();
    if peer.has_news() {
        peer.reads_to_end();
    } else {
        t.stays_open(&peer);
    }
    peer
}

fn answers() -> Vec<Case> {
    vec![
        case("the highest version selects the form of a success")
            .expect(&[
                r"0: y\x00<creation>",
                "0: open",
                r"5: y\x00<creation>",
                "5: open",
                r"6: v\x00<creation>",
                "6: open",
                r"65535: v\x00<creation>",
                "65535: open",
            ])
            .play(|t| {
                let versions = [0, 5, 6, 65535].map(|version: u16| (version, version.to_string()));
                let peers = versions.map(|(version, name)| {
                    attempt(t, &name, &Alive2::new(format!("v{name}")).highest(version).bytes())
                });
                drop(peers);
            }),
        case("the highest version selects the form of a refusal")
            .expect(&[
                r"0: y\x01\x00c",
                "0: open",
                r"5: y\x01\x00c",
                "5: open",
                r"6: v\x01\x00\x00\x00c",
                "6: open",
                r"65535: v\x01\x00\x00\x00c",
                "65535: open",
            ])
            .play(|t| {
                let _holder = t.register("taken");
                for version in [0, 5, 6, 65535_u16] {
                    attempt(t, &version.to_string(), &Alive2::new("taken").highest(version).bytes());
                }
            }),
        // A stock node that gets the response as 4 + 2 bytes takes it for garbage and does not start.
        case("the answer comes in one segment")
            .expect(&[
                r"new: v\x00<creation>",
                "new: in one segment",
                r"refused: v\x01\x00\x00\x00c",
                "refused: in one segment",
                r"old form: y\x00<creation>",
                "old form: in one segment",
            ])
            .play(|t| {
                let ask = |who: &str, request: Alive2| {
                    let peer = t.dial(who);
                    peer.send(&request.bytes());
                    peer.reads_alive2_reply();
                    peer.counts_segments();
                    peer
                };
                let _new = ask("new", Alive2::new("one"));
                ask("refused", Alive2::new("one"));
                ask("old form", Alive2::new("two").highest(5));
            }),
        case("a client that half-closes behind its registration is answered, and gone")
            .expect(&[r"client: v\x00<creation>", "client: eof", "left: none"])
            .play(|t| {
                let client = t.dial("client");
                client.send(&alive2("node"));
                client.half_close();
                client.reads_alive2_reply();
                client.reads_to_end();
                t.wait_until_unregistered(b"node");
                t.lists("left");
            }),
        case("a node registered over IPv6 is found over IPv4")
            .expect(&[
                r"client: v\x00<creation>",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof",
                r"other: v\x01\x00\x00\x00c",
            ])
            .play(|t| {
                let client = t.dial_between("client", "::1", "::1");
                client.send(&alive2("node"));
                client.reads_alive2_reply();
                t.ask("lookup", &port2("node"));
                let other = t.dial("other");
                other.send(&alive2("node"));
                other.reads_alive2_reply();
            }),
        case("every field is kept as it came")
            .expect(&[
                r"plain: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x05plain\x00\x00 eof",
                r"zeros: w\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05zeros\x00\x00 eof",
                r"ones: w\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04ones\x00\x02\xff\xff eof",
                r"c node: w\x00\x0f\xa1h\x00\x00\x06\x00\x06\x00\x06c node\x00\x00 eof",
                r"java: w\x00\x0f\xa2n\x06\x00\x05\x00\x06\x00\x04java\x00\x04a\x00\n\x80 eof",
            ])
            .play(|t| {
                let node = |name: &str, port, kind, protocol, highest, lowest, extra: &[u8]| {
                    let request = Alive2 { port, kind, protocol, highest, lowest, ..Alive2::new(name) };
                    t.register_as(&request.extra(extra))
                };
                let nodes = [
                    t.register("plain"),
                    node("zeros", 0, 0, 0, 0, 0, b""),
                    node("ones", 65535, 255, 255, 65535, 65535, b"\xFF\xFF"),
                    node("c node", 4001, b'h', 0, 6, 6, b""),
                    node("java", 4002, b'n', 6, 5, 6, b"a\0\n\x80"),
                ];
                for node in &nodes {
                    t.ask(&node.peer.who, &port2(&node.name));
                }
            }),
    ]
}

/// Requests with inconsistent lengths are closed without a response.
fn structure() -> Vec<Case> {
    let silent = |name: &'static str, requests: Vec<(&'static str, Vec<u8>)>| {
        let mut expected: Vec<String> = requests.iter().map(|(what, _)| format!("{what}: eof")).collect();
        expected.push("left: none".to_owned());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        case(name).expect(&expected).play(move |t| {
            requests.iter().for_each(|(what, request)| t.ask(what, request));
            t.lists("left");
        })
    };
    let full = Alive2::new("node").body();
    vec![
        silent(
            "a request of at most 13 bytes",
            vec![
                ("1", packet(&full[..1])),
                ("2", packet(&full[..2])),
                ("11", packet(&full[..11])),
                ("12", packet(&full[..12])),
                ("13", packet(&full[..13])),
                ("13, with empty name and extra", Alive2::new("").bytes()),
            ],
        ),
        silent(
            "lengths beyond the packet",
            vec![
                ("name by one", Alive2::new("node").name_length(5).bytes()),
                ("name by far", Alive2::new("node").name_length(65535).bytes()),
                ("extra by one", Alive2::new("node").extra_length(1).bytes()),
                ("extra by far", Alive2::new("node").extra_length(65535).bytes()),
                ("extra cut", Alive2::new("node").extra("abc").extra_length(4).bytes()),
                // "de" and the following length are then read in place of the extra field's length.
                ("name too short", Alive2::new("node").name_length(2).bytes()),
                ("name of none", Alive2::new("node").name_length(0).bytes()),
                ("packet cut by one", packet(&full[..full.len() - 1])),
                ("packet cut by two", packet(&full[..full.len() - 2])),
            ],
        ),
        silent(
            "a NUL in the name",
            vec![
                ("in front", alive2(b"\0node")),
                ("inside", alive2(b"no\0de")),
                ("at the end", alive2(b"node\0")),
                ("alone", alive2(b"\0")),
                ("before bad UTF-8", alive2(b"\0\xFF")),
                ("in a name too long", alive2([&[b'a'; 1021][..], b"\0"].concat())),
            ],
        ),
        case("bytes behind the last field are ignored")
            .expect(&[
                r"one: v\x00<creation>",
                "one: open",
                r"many: v\x00<creation>",
                "many: open",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x03one\x00\x02ab eof",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04many\x00\x00 eof",
            ])
            .play(|t| {
                let _one = attempt(t, "one", &Alive2::new("one").extra("ab").trailing("!").bytes());
                let _many = attempt(t, "many", &Alive2::new("many").trailing([0; 2000]).bytes());
                t.ask("lookup", &port2("one"));
                t.ask("lookup", &port2("many"));
            }),
    ]
}

/// Well-formed requests that exceed a limit get a response and stay connected.
fn refusals() -> Vec<Case> {
    let refused = |name: &'static str, requests: Vec<(&'static str, Alive2)>| {
        let mut expected = Vec::new();
        for (what, _) in &requests {
            expected.push(format!("{what}: {REFUSED}"));
            expected.push(format!("{what}: open"));
            expected.push(format!("{what}: {REFUSED_BEFORE_6}"));
            expected.push(format!("{what}: open"));
        }
        expected.push("left: none".to_owned());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        case(name).expect(&expected).play(move |t| {
            for (what, request) in &requests {
                attempt(t, what, &request.bytes());
                attempt(t, what, &request.clone().highest(5).bytes());
            }
            t.lists("left");
        })
    };
    vec![
        refused(
            "names that are too long",
            vec![
                ("256 characters", Alive2::new("a".repeat(256))),
                ("256 characters of four bytes", Alive2::new("\u{1F600}".repeat(256))),
                ("1020 characters", Alive2::new("a".repeat(1020))),
                ("1021 bytes", Alive2::new("a".repeat(1021))),
                ("3000 bytes", Alive2::new("a".repeat(3000))),
            ],
        ),
        refused(
            "an extra field that is too long",
            vec![
                ("1021 bytes", Alive2::new("node").extra([0; 1021])),
                ("2000 bytes", Alive2::new("node").extra([b'e'; 2000])),
            ],
        ),
        case("the largest registration")
            .expect(&[
                r"ascii: v\x00<creation>",
                "ascii: open",
                r"four-byte characters: v\x00<creation>",
                "four-byte characters: open",
                r"extra: v\x00<creation>",
                "extra: open",
            ])
            .play(|t| {
                let largest = Alive2::new("\u{1F600}".repeat(255)).extra([0xEE; 1020]);
                assert_eq!(largest.body().len(), 13 + 1020 + 1020);
                let _ascii = attempt(t, "ascii", &alive2("a".repeat(255)));
                let _wide = attempt(t, "four-byte characters", &largest.bytes());
                let _extra = attempt(t, "extra", &Alive2::new("extra").extra([0; 1020]).bytes());
            }),
    ]
}

fn duplicates() -> Vec<Case> {
    vec![
        case("a name in use is refused, and its holder untouched")
            .expect(&[
                r"second: v\x01\x00\x00\x00c",
                "second: open",
                r"third: y\x01\x00c",
                "third: open",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x05taken\x00\x00 eof",
                "taken: open",
            ])
            .play(|t| {
                let holder = t.register("taken");
                let _second = attempt(t, "second", &Alive2::new("taken").port(4001).bytes());
                let _third = attempt(t, "third", &Alive2::new("taken").port(4002).highest(5).bytes());
                t.ask("lookup", &port2("taken"));
                t.stays_open(&holder.peer);
            }),
        case("of many that want a name at once, one gets it")
            .expect(&["successes: 1", "refusals: 39", "left: node"])
            .play(|t| {
                t.stop_server();
                let peers: Vec<Peer> = (0..40).map(|_| t.dial("one of many")).collect();
                peers.iter().for_each(|peer| peer.send(&alive2("node")));
                t.continue_server();
                let answers: Vec<Vec<u8>> = peers.iter().map(|peer| peer.all_of(6)).collect();
                let successes = answers.iter().filter(|answer| answer.starts_with(b"v\0")).count();
                let refusals = answers.iter().filter(|answer| *answer == b"v\x01\0\0\0c").count();
                t.note(&format!("successes: {successes}"));
                t.note(&format!("refusals: {refusals}"));
                t.lists("left");
            }),
        case("names are compared byte by byte")
            .expect(&[
                r"other case: v\x00<creation>",
                "other case: open",
                r"longer: v\x00<creation>",
                "longer: open",
                r"shorter: v\x00<creation>",
                "shorter: open",
                // The same letter, composed and decomposed.
                r"composed: v\x00<creation>",
                "composed: open",
                r"decomposed: v\x00<creation>",
                "decomposed: open",
            ])
            .play(|t| {
                let _node = t.register("node");
                let names = [
                    ("other case", "Node"),
                    ("longer", "node1"),
                    ("shorter", "nod"),
                    ("composed", "\u{E9}"),
                    ("decomposed", "e\u{301}"),
                ];
                let _peers = names.map(|(what, name)| attempt(t, what, &alive2(name)));
            }),
        case("a client whose registration failed may leave as it likes")
            .expect(&[
                "left: taken",
                "left: taken",
                "left: taken",
                "talking: eof",
                "left: taken",
                "taken: open",
            ])
            .play(|t| {
                let holder = t.register("taken");
                let second = || {
                    let peer = t.dial("talking");
                    peer.send(&alive2("taken"));
                    assert_eq!(peer.all_of(6), b"v\x01\0\0\0c");
                    peer
                };
                let closing = second();
                let ends = closing.ends();
                drop(closing);
                wait_until_dropped(ends);
                t.lists("left");
                let half = second();
                half.half_close();
                half.wait_until_dropped();
                t.lists("left");
                let resetting = second();
                let ends = resetting.ends();
                resetting.reset();
                wait_until_dropped(ends);
                t.lists("left");
                let talking = second();
                talking.send(&port2("taken"));
                talking.reads_to_end();
                t.lists("left");
                t.stays_open(&holder.peer);
            }),
    ]
}

/// Unusual names that stock epmd accepts.
fn odd_names() -> Vec<Case> {
    vec![
        case("an empty name is accepted if anything follows it")
            .expect(&[
                r"trailing byte: v\x00<creation>",
                r"names: \x00\x00\x11\x11name  at port 4000\n eof",
                "lookup: eof",
                r"extra: v\x00<creation>",
                r"names: \x00\x00\x11\x11name  at port 4001\n eof",
            ])
            .play(|t| {
                let name = t.dial("trailing byte");
                name.send(&Alive2::new("").trailing("!").bytes());
                name.reads_alive2_reply();
                t.ask("names", &wire::names());
                t.ask("lookup", &port2(""));
                drop(name);
                t.wait_until_unregistered(b"");
                let name = t.dial("extra");
                name.send(&Alive2::new("").port(4001).extra("!").bytes());
                name.reads_alive2_reply();
                t.ask("names", &wire::names());
            }),
        case("names with spaces, line ends and at signs go unescaped into the list")
            .expect(&[
                r"names: \x00\x00\x11\x11name a b\x01@\x7f at port 4000\nname 1\n2\r at port 4000\n eof",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x041\n2\r\x00\x00 eof",
                r"lookup: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x06a b\x01@\x7f\x00\x00 eof",
            ])
            .play(|t| {
                let names = ["1\n2\r", "a b\x01@\x7F"];
                let _nodes = names.map(|name| t.register(name));
                t.ask("names", &wire::names());
                names.iter().for_each(|name| t.ask("lookup", &port2(name)));
            }),
    ]
}

/// Undeliverable responses: with a delayed write, the client is gone before the response is written.
fn undeliverable() -> Vec<Case> {
    vec![
        case("a success that cannot be delivered is undone, but its creation is used up")
            .alone()
            .args(&["-delay_write", "1"])
            .expect(&["gone: none", r"again: v\x00<creation>", "again: two after the first"])
            .play(|t| {
                // Requesting the list would take a second per line, so the connection is watched instead.
                let Node { peer, creation: first, .. } = t.register("node");
                let ends = peer.ends();
                drop(peer);
                wait_until_dropped(ends);
                let impatient = t.dial("impatient");
                impatient.send_apart(&alive2("node"));
                let ends = impatient.ends();
                impatient.reset();
                wait_until_dropped(ends);
                t.lists("gone");
                let again = t.dial("again");
                again.send(&alive2("node"));
                let creation = again.reads_alive2_reply();
                again.note(if creation == first + 2 {
                    "two after the first"
                } else {
                    "not two after the first"
                });
            }),
        case("a refusal that cannot be delivered")
            .alone()
            .args(&["-delay_write", "1"])
            .expect(&["left: none", "taken: open"])
            .diverges(
                Divergence::UndeliveredRefusal,
                &["left: taken", "taken: open"],
                "a third party must not be able to unregister the legitimate holder",
            )
            .play(|t| {
                let holder = t.register("taken");
                let impatient = t.dial("impatient");
                impatient.send_apart(&alive2("taken"));
                let ends = impatient.ends();
                impatient.reset();
                wait_until_dropped(ends);
                t.lists("left");
                t.stays_open(&holder.peer);
            }),
    ]
}
