//! The lifetime of connections: the packet timeout, and the events that unregister a node.

use crate::battery::{Case, Divergence, case};
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::peer::Peer;
use crate::sockets;
use crate::stage::Stage;
use crate::wire::{alive2, names, port2};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = timeouts();
    cases.extend(delays());
    cases.extend(unregistrations());
    cases
}

fn timeouts() -> Vec<Case> {
    vec![
        case("connections without a complete request time out, registered and refused ones never")
            .alone()
            .args(&["-packet_timeout", "2"])
            .expect(&[
                "nothing: eof",
                "one byte: eof",
                "length: eof",
                "part: eof",
                "timed out: after more than 2 seconds",
                "later: eof",
                "node: open",
                "refused: open",
                "left: node",
            ])
            .play(|t| {
                let node = t.register("node");
                let refused = t.dial("refused");
                refused.send(&alive2("node"));
                assert_eq!(refused.all_of(6), b"v\x01\0\0\0c");
                let started = Instant::now();
                let incomplete = [
                    ("nothing", &b""[..]),
                    ("one byte", b"\0"),
                    ("length", b"\0\x07"),
                    ("part", b"\0\x07zno"),
                ];
                let peers = incomplete.map(|(who, bytes)| {
                    let peer = t.dial(who);
                    if !bytes.is_empty() {
                        peer.send(bytes);
                    }
                    peer
                });
                peers.iter().for_each(Peer::reads_to_end);
                let early = started.elapsed() < Duration::from_secs(2);
                t.note(if early { "timed out: early" } else { "timed out: after more than 2 seconds" });
                // After a second round, the others are long past their timeout.
                t.dial("later").reads_to_end();
                t.stays_open(&node.peer);
                t.stays_open(&refused);
                t.lists("left");
            }),
        case("a timeout below zero never comes")
            .alone()
            .args(&["-packet_timeout", "-1"])
            .expect(&["client: open", r"client: w\x01 eof"])
            .play(|t| {
                let client = t.dial("client");
                client.send_apart(b"\0\x07zno");
                wait_for_timeouts(t, 2);
                t.stays_open(&client);
                client.send(b"body");
                client.reads_to_end();
            }),
        case("a byte now and then")
            .alone()
            .args(&["-packet_timeout", "3"])
            .expect(&["client: answered after two timeouts"])
            .repaired(&["client: closed"])
            .diverges(
                Divergence::SlowDrip,
                &["client: closed"],
                "only a complete request counts as activity, so that no client can hold a connection forever",
            )
            .play(|t| {
                let client = t.dial("client");
                let mut request = port2("n".repeat(200)).into_iter();
                for _ in 0..2 {
                    let silent = t.dial("silent");
                    while !silent.has_news() && !client.has_news() {
                        client.try_send(&[request.next().expect("two timeouts are over by now")]);
                        // Often enough to count as activity in stock, rarely enough for the request to last. Newer
                        // stock checks only when it has something else to do between two bytes.
                        std::thread::sleep(Duration::from_millis(100));
                        drop(t.dial("passer-by"));
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                client.try_send(&request.collect::<Vec<u8>>());
                let answered = client.all() == b"w\x01";
                client.note(if answered { "answered after two timeouts" } else { "closed" });
            }),
    ]
}

/// The flags that delay a server, which OTP's own tests use to provoke races.
fn delays() -> Vec<Case> {
    const SECOND: Duration = Duration::from_secs(1);
    vec![
        case("every write is delayed")
            .alone()
            .args(&["-delay_write", "1"])
            .expect(&["register: after a second", "names: after two seconds", "lookup: after a second"])
            .play(|t| {
                let started = Instant::now();
                let _node = t.register("node");
                t.note(if started.elapsed() >= SECOND {
                    "register: after a second"
                } else {
                    "register: at once"
                });
                let started = Instant::now();
                assert!(t.has(b"node"), "the node is registered");
                let late = started.elapsed() >= 2 * SECOND;
                t.note(if late { "names: after two seconds" } else { "names: earlier" });
                let started = Instant::now();
                t.ask_silently(&port2("node"));
                t.note(if started.elapsed() >= SECOND {
                    "lookup: after a second"
                } else {
                    "lookup: at once"
                });
            }),
        case("every round of accepts is delayed")
            .alone()
            .args(&["-delay_accept", "1"])
            .expect(&["lookup: after a second"])
            .play(|t| {
                let started = Instant::now();
                t.ask_silently(&port2("node"));
                t.note(if started.elapsed() >= SECOND {
                    "lookup: after a second"
                } else {
                    "lookup: at once"
                });
            }),
    ]
}

/// Waits for `count` packet timeouts of one second, as measured by another server on the same host.
fn wait_for_timeouts(t: &Stage<'_>, count: usize) {
    let address = SocketAddr::new(t.address().ip(), 5000);
    let _clock = Program::spawn(t.command(&["-port", "5000", "-packet_timeout", "1"]));
    wait_until("another server", || {
        sockets::listeners(5000).contains(&"0.0.0.0".parse().expect("an address"))
    });
    for _ in 0..count {
        let silent = t.dial_at("silent", address);
        silent.all();
    }
}

fn unregistrations() -> Vec<Case> {
    let data = |name: &'static str, bytes: Vec<u8>| {
        case(name).expect(&["node: eof", "left: none", r"lookup: w\x01 eof"]).play(move |t| {
            let node = t.register("node");
            node.peer.send(&bytes);
            node.peer.reads_to_end();
            t.wait_until_unregistered(b"node");
            t.lists("left");
            t.ask("lookup", &port2("node"));
        })
    };
    vec![
        data("a byte on a registered connection unregisters", vec![0]),
        data("a request on a registered connection unregisters", names()),
        data("another registration on a registered connection unregisters", alive2("other")),
        data("as much as one read takes on a registered connection unregisters", vec![b'?'; 3059]),
        // Bytes left unread turn the close into a reset.
        case("a flood on a registered connection unregisters").expect(&["node: reset", "left: none"]).play(
            |t| {
                let node = t.register("node");
                node.peer.send(&[b'?'; 20_000]);
                node.peer.reads_to_end();
                t.wait_until_unregistered(b"node");
                t.lists("left");
            },
        ),
        case("a half-close of a registered connection unregisters")
            .expect(&["node: eof", "left: none"])
            .play(|t| {
                let node = t.register("node");
                node.peer.half_close();
                node.peer.reads_to_end();
                t.wait_until_unregistered(b"node");
                t.lists("left");
            }),
        case("a close of a registered connection unregisters").expect(&["left: other"]).play(|t| {
            let node = t.register("node");
            let _other = t.register("other");
            drop(node);
            t.wait_until_unregistered(b"node");
            t.lists("left");
        }),
        case("a reset of a registered connection unregisters").expect(&["left: other"]).play(|t| {
            let node = t.register("node");
            let _other = t.register("other");
            node.peer.reset();
            t.wait_until_unregistered(b"node");
            t.lists("left");
        }),
        // ei clients read four of the six bytes, so that their close becomes a reset.
        case("a client that never reads its answer").expect(&["left: none"]).play(|t| {
            let client = t.dial("client");
            client.send(&alive2("node"));
            wait_until("the registration", || t.has(b"node"));
            drop(client);
            t.wait_until_unregistered(b"node");
            t.lists("left");
        }),
        case("many clients at once").expect(&["answered: 300 of 300"]).play(|t| {
            let clients: Vec<Peer> = (0..300).map(|_| t.dial("client")).collect();
            clients.iter().for_each(|client| client.send(&port2("nobody")));
            let answered = clients.iter().filter(|client| client.all() == b"w\x01").count();
            t.note(&format!("answered: {answered} of 300"));
        }),
        case("many nodes that leave at once").expect(&["before: 300", "left: none"]).play(|t| {
            let nodes: Vec<_> = (0..300).map(|number| t.register(format!("n{number}"))).collect();
            let count = t.names_text().unwrap_or_default().split(|&byte| byte == b'\n').count() - 1;
            t.note(&format!("before: {count}"));
            drop(nodes);
            wait_until("all to be unregistered", || t.names_text().is_some_and(|text| text.is_empty()));
            t.lists("left");
        }),
        // The peer address of a socket that was reset in the backlog is not available.
        case("a connection that is reset before it is accepted")
            .expect(&["server: lives", "left: none"])
            .play(|t| {
                t.stop_server();
                for _ in 0..5 {
                    let peer = t.dial("hasty");
                    peer.send(&alive2("hasty"));
                    peer.reset();
                }
                t.continue_server();
                t.server_lives();
                t.lists("left");
            }),
    ]
}
