//! NAMES_REQ and DUMP_REQ: the header, the lines, and their order.

use crate::battery::{Case, case};
use crate::peer::printable;
use crate::wire::{Alive2, dump, names, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = names_request();
    cases.extend(headers());
    cases.extend(dump_request());
    cases
}

fn names_request() -> Vec<Case> {
    vec![
        case("names, newest first")
            .expect(&[
                r"empty: \x00\x00\x11\x11 eof",
                r"one: \x00\x00\x11\x11name a at port 0\n eof",
                r"three: \x00\x00\x11\x11name c at port 65535\nname b at port 5\nname a at port 0\n eof",
                r"middle gone: \x00\x00\x11\x11name c at port 65535\nname a at port 0\n eof",
                r"middle back: \x00\x00\x11\x11name b at port 6\nname c at port 65535\nname a at port 0\n eof",
            ])
            .play(|t| {
                t.ask("empty", &names());
                let _a = t.register_as(&Alive2::new("a").port(0));
                t.ask("one", &names());
                let b = t.register_as(&Alive2::new("b").port(5));
                let _c = t.register_as(&Alive2::new("c").port(65535));
                t.ask("three", &names());
                drop(b);
                t.wait_until_unregistered(b"b");
                t.ask("middle gone", &names());
                let _b = t.register_as(&Alive2::new("b").port(6));
                t.ask("middle back", &names());
            }),
        case("a body behind the opcode is ignored")
            .expect(&[
                r"short: \x00\x00\x11\x11name a at port 4000\n eof",
                r"long: \x00\x00\x11\x11name a at port 4000\n eof",
            ])
            .play(|t| {
                let _a = t.register("a");
                t.ask("short", &packet("n!"));
                t.ask("long", &packet([b'n'; 3000]));
            }),
        // Stock clients skip a first piece that is shorter and take the next one for the header.
        case("the header comes in one piece").expect(&["names: at least 4 bytes", "dump: at least 4 bytes"]).play(|t| {
            let _nodes = ["a", "b", "c"].map(|name| t.register(name));
            for (who, request) in [("names", names()), ("dump", dump())] {
                let client = t.dial(who);
                client.send(&request);
                let count = client.first_piece().len();
                client.note(&if count >= 4 { "at least 4 bytes".to_owned() } else { format!("{count} bytes") });
            }
        }),
        case("a list of many nodes")
            .expect(&["all: 500 lines, newest first"])
            .play(|t| {
                let nodes: Vec<_> = (0..500).map(|number| t.register(format!("node{number}"))).collect();
                let text = String::from_utf8(t.names_text().unwrap_or_default()).expect("names in ASCII");
                let wanted: String =
                    (0..500).rev().map(|number| format!("name node{number} at port 4000\n")).collect();
                t.note(if text == wanted { "all: 500 lines, newest first" } else { &text });
                drop(nodes);
            }),
    ]
}

/// The leading number is the configured port, even if the daemon uses a different one; clients compare it with theirs.
fn headers() -> Vec<Case> {
    let case = |name| {
        case(name).play(|t| {
            t.ask("names", &names());
            t.ask("dump", &dump());
        })
    };
    vec![
        case("the header of a given port")
            .args(&["-port", "5001"])
            .port(5001)
            .expect(&[r"names: \x00\x00\x13\x89 eof", r"dump: \x00\x00\x13\x89 eof"]),
        case("the header of a port from the environment")
            .env("ERL_EPMD_PORT", "5002")
            .port(5002)
            .expect(&[r"names: \x00\x00\x13\x8a eof", r"dump: \x00\x00\x13\x8a eof"]),
        case("the header of a port above 65535")
            .env("ERL_EPMD_PORT", "70000")
            .port(4464)
            .expect(&[r"names: \x00\x01\x11p eof", r"dump: \x00\x01\x11p eof"]),
        case("the header of a port above 65535, given")
            .args(&["-port", "70000"])
            .port(4464)
            .expect(&[r"names: \x00\x01\x11p eof", r"dump: \x00\x01\x11p eof"]),
        case("the header of a negative port")
            .env("ERL_EPMD_PORT", "-5")
            .port(65531)
            .expect(&[r"names: \xff\xff\xff\xfb eof", r"dump: \xff\xff\xff\xfb eof"]),
    ]
}

fn dump_request() -> Vec<Case> {
    vec![
        case("the longest name in the lists")
            .expect(&["names: whole", "dump: whole", "dump, old: whole"])
            .play(|t| {
                let name = "\u{1F600}".repeat(255);
                let node = t.register_as(&Alive2::new(&name).extra([b'e'; 1020]));
                let text = String::from_utf8(t.names_text().unwrap_or_default()).expect("UTF-8");
                t.note(if text == format!("name {name} at port 4000\n") { "names: whole" } else { &text });
                let name = printable(name.as_bytes());
                let line = format!("active name     <{name}> at port 4000, fd = N\\n");
                t.note(if t.dump_lines() == [line] { "dump: whole" } else { "dump: not whole" });
                drop(node.peer);
                t.wait_until_unregistered(&node.name);
                let line = format!("old/unused name <{name}>, port = 4000, fd = N \\n");
                t.note(if t.dump_lines() == [line] { "dump, old: whole" } else { "dump, old: not whole" });
            }),
        case("a dump of nothing").expect(&[r"dump: \x00\x00\x11\x11 eof"]).play(|t| t.ask("dump", &dump())),
        case("active nodes newest first, then old names oldest first")
            .expect(&[
                "active name     <d> at port 4000, fd = N",
                "active name     <b> at port 4000, fd = N",
                "old/unused name <c>, port = 4000, fd = N ",
                "old/unused name <a>, port = 77, fd = N ",
            ])
            .play(|t| {
                let a = t.register_as(&Alive2::new("a").port(77));
                let [_b, c, _d] = ["b", "c", "d"].map(|name| t.register(name));
                for gone in [c, a] {
                    drop(gone.peer);
                    t.wait_until_unregistered(&gone.name);
                }
                t.dump_lines().iter().for_each(|line| t.note(line.trim_end_matches(r"\n")));
            }),
        // The exact bytes are compared because lines end with LF and NUL.
        case("a dump to the byte")
            .expect(&["header 00 00 11 11", "active line exact", "old line exact", "descriptor kept"])
            .play(|t| {
                let node = t.register_as(&Alive2::new("node").port(4001));
                let ask = || {
                    let client = t.dial("client");
                    client.send(&dump());
                    let answer = String::from_utf8(client.all()).expect("ASCII");
                    let digits = |c: char| c.is_ascii_digit();
                    let descriptor: String = answer
                        .rsplit("fd = ")
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take_while(|&c| digits(c))
                        .collect();
                    (answer, descriptor)
                };
                let (active, number) = ask();
                let exact = |is: bool, what: &str, text: &str| {
                    t.note(&if is { what.to_owned() } else { text.escape_default().to_string() });
                };
                exact(active.starts_with("\0\0\x11\x11"), "header 00 00 11 11", &active);
                let wanted = format!("active name     <node> at port 4001, fd = {number}\n\0");
                exact(active.get(4..) == Some(&wanted), "active line exact", &active);
                drop(node);
                t.wait_until_unregistered(b"node");
                let (old, old_number) = ask();
                let wanted = format!("old/unused name <node>, port = 4001, fd = {old_number} \n\0");
                exact(old.get(4..) == Some(&wanted), "old line exact", &old);
                exact(number == old_number && !number.is_empty(), "descriptor kept", &old);
            }),
        case("a body behind the opcode of a dump is ignored")
            .expect(&[r"dump: \x00\x00\x11\x11 eof"])
            .play(|t| t.ask("dump", &packet(b"dump"))),
        case("an old name that comes back is not old any more")
            .expect(&["active name     <node> at port 4001, fd = N"])
            .play(|t| {
                t.remember("node");
                let _node = t.register_as(&Alive2::new("node").port(4001));
                t.dump_lines().iter().for_each(|line| t.note(line.trim_end_matches(r"\n")));
            }),
    ]
}
