//! KILL_REQ, STOP_REQ, and unknown opcodes.

use crate::battery::{Case, case, table};
use crate::wire::{alive2, kill, names, packet, port2, stop};

const RELAXED: &[&str] = &["-relaxed_command_check"];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = kills();
    cases.extend(stops());
    cases.extend(stops_refused());
    cases.push(table(
        "unknown opcodes",
        vec![
            ("0", packet([0]), "eof".into()),
            ("1", packet([1]), "eof".into()),
            ("78, NAMES in capitals", packet("N"), "eof".into()),
            ("97, ALIVE of old", packet("aXYZ"), "eof".into()),
            ("112, PORT_PLEASE of old", packet("pnode"), "eof".into()),
            ("118, an answer", packet("v\0\0\0\0\0"), "eof".into()),
            ("119, an answer", packet("w\x01"), "eof".into()),
            ("121, an answer", packet("y\0\0\0"), "eof".into()),
            ("255", packet([255]), "eof".into()),
            ("255 with a body", packet([255; 3000]), "eof".into()),
        ],
    ));
    cases
}

fn kills() -> Vec<Case> {
    vec![
        case("kill of an idle server").expect(&["kill: OK eof", "server: exit 0"]).play(|t| {
            t.ask("kill", &kill());
            t.server_ends();
        }),
        case("kill with a body").expect(&["kill: OK eof", "server: exit 0"]).play(|t| {
            t.ask("kill", &packet("kill me"));
            t.server_ends();
        }),
        case("kill with a live node")
            .expect(&["kill: NO eof", "server: lives", "node: open", "kill: OK eof", "server: exit 0"])
            .play(|t| {
                let node = t.register("node");
                t.ask("kill", &kill());
                t.server_lives();
                t.stays_open(&node.peer);
                drop(node);
                t.wait_until_unregistered(b"node");
                // The name is remembered, which does not keep the server alive.
                t.ask("kill", &kill());
                t.server_ends();
            }),
        case("kill with clients that are no nodes")
            .expect(&["kill: OK eof", "server: exit 0", "waiting: gone", "refused: gone"])
            .play(|t| {
                let waiting = t.dial("waiting");
                waiting.send_apart(b"\0\x07zno");
                let node = t.register("node");
                let refused = t.dial("refused");
                refused.send(&alive2("node"));
                assert_eq!(refused.all_of(6), b"v\x01\0\0\0c");
                drop(node);
                t.wait_until_unregistered(b"node");
                t.ask("kill", &kill());
                t.server_ends();
                for peer in [waiting, refused] {
                    // Whether it is an end or a reset depends on unread data in the kernel.
                    peer.all();
                    peer.note(if peer.has_news() { "gone" } else { "left open" });
                }
            }),
        case("a relaxed kill with a live node")
            .args(RELAXED)
            .expect(&["kill: OK eof", "server: exit 0", "node: eof"])
            .play(|t| {
                let node = t.register("node");
                t.ask("kill", &kill());
                t.server_ends();
                node.peer.reads_to_end();
            }),
        case("relaxed by the environment, even if the variable is empty")
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "")
            .expect(&["kill: OK eof", "server: exit 0"])
            .play(|t| {
                let _node = t.register("node");
                t.ask("kill", &kill());
                t.server_ends();
            }),
        case("relaxed by the environment, whatever the value")
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "false")
            .expect(&["kill: OK eof", "server: exit 0"])
            .play(|t| {
                let _node = t.register("node");
                t.ask("kill", &kill());
                t.server_ends();
            }),
    ]
}

fn stops() -> Vec<Case> {
    vec![
        case("stop of a node")
            .args(RELAXED)
            .expect(&[
                "stop: STOPPED eof",
                "one: eof",
                "left: two",
                r"lookup: w\x01 eof",
                "two: open",
                "active name     <two> at port 4000, fd = N",
                "old/unused name <one>, port = 4000, fd = N ",
                "again: one after the first",
            ])
            .play(|t| {
                let one = t.register("one");
                let two = t.register("two");
                t.ask("stop", &stop("one"));
                one.peer.reads_to_end();
                t.lists("left");
                t.ask("lookup", &port2("one"));
                t.stays_open(&two.peer);
                t.dump_lines().iter().for_each(|line| t.note(line.trim_end_matches(r"\n")));
                let again = t.register("one");
                let next = again.creation == one.creation + 1;
                t.note(if next { "again: one after the first" } else { "again: not one after the first" });
            }),
        // The node's connection is closed before the response is sent.
        case("stop closes the node before it answers").args(RELAXED).expect(&["node: eof"]).play(|t| {
            let node = t.register("node");
            let client = t.dial("client");
            client.send(&stop("node"));
            assert_eq!(client.all(), b"STOPPED");
            node.peer.is_open();
        }),
        case("stop of an unknown name")
            .args(RELAXED)
            .expect(&["unknown: NOEXISTSTOPPED eof", "old: NOEXISTSTOPPED eof", "server: lives"])
            .play(|t| {
                t.ask("unknown", &stop("nobody"));
                t.remember("old");
                t.ask("old", &stop("old"));
                t.server_lives();
            }),
        case("the name to stop ends at the first NUL")
            .args(RELAXED)
            .expect(&[
                "beta: STOPPED eof",
                "left: gamma, alpha",
                "gamma: STOPPED eof",
                "left: alpha",
                "empty: NOEXISTSTOPPED eof",
                "left: alpha",
            ])
            .play(|t| {
                let _nodes = ["alpha", "beta", "gamma"].map(|name| t.register(name));
                t.ask("beta", &stop("beta\0junk"));
                t.lists("left");
                t.ask("gamma", &stop("gamma\0"));
                t.lists("left");
                t.ask("empty", &stop("\0alpha"));
                t.lists("left");
            }),
        case("the name to stop is not checked")
            .args(RELAXED)
            .expect(&[
                "bad UTF-8: NOEXISTSTOPPED eof",
                "too long: NOEXISTSTOPPED eof",
                "longest: STOPPED eof",
                "left: none",
            ])
            .play(|t| {
                let _longest = t.register("a".repeat(255));
                t.ask("bad UTF-8", &stop(b"\xFF\xFE"));
                t.ask("too long", &stop("b".repeat(3000)));
                t.ask("longest", &stop("a".repeat(255)));
                t.lists("left");
            }),
    ]
}

fn stops_refused() -> Vec<Case> {
    vec![
        case("stop without a name")
            .args(RELAXED)
            .expect(&["stop: eof"])
            .play(|t| t.ask("stop", &packet("s"))),
        case("stop is refused by default")
            .expect(&["stop: eof", "unknown: eof", "node: open", "left: node"])
            .play(|t| {
                let node = t.register("node");
                t.ask("stop", &stop("node"));
                t.ask("unknown", &stop("nobody"));
                t.stays_open(&node.peer);
                t.lists("left");
            }),
        case("stop relaxed by the environment")
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "")
            .expect(&["stop: STOPPED eof", r"names: \x00\x00\x11\x11 eof"])
            .play(|t| {
                let _node = t.register("node");
                t.ask("stop", &stop("node"));
                t.ask("names", &names());
            }),
    ]
}
