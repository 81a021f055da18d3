//! Only peers with a loopback address or the server's own address may register, dump, stop and kill.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use crate::battery::{Case, case};
use crate::harness::netns::NetNs;
use crate::peer::printable;
use crate::stage::Stage;
use crate::systemd::{dual_stack, spawn_with_sockets, unix_listener};
use crate::wire::{alive2, dump, kill, names, port2, stop};

/// Source, destination, and whether the connection counts as local.
const ROUTES: [(&str, &str, bool); 14] = [
    ("127.0.0.1", "127.0.0.1", true),
    ("127.0.0.5", "127.0.0.1", true),
    ("127.0.0.1", "127.0.0.5", true),
    ("127.255.255.254", "127.0.0.1", true),
    ("127.0.0.1", "10.9.9.1", true),
    ("127.0.0.5", "10.9.9.1", true),
    ("::1", "::1", true),
    ("::1", "fd00:9::1", true),
    ("10.9.9.1", "10.9.9.1", true),
    ("fd00:9::1", "fd00:9::1", true),
    ("10.9.9.2", "10.9.9.1", false),
    ("10.9.9.1", "127.0.0.1", false),
    ("fd00:9::1", "::1", false),
    ("fd00:9::2", "fd00:9::1", false),
];

/// The same on an inherited dual-stack socket, where the server sees mapped addresses.
const MAPPED_ROUTES: [(&str, &str, bool); 7] = [
    ("127.0.0.1", "127.0.0.1", true),
    ("10.9.9.1", "10.9.9.1", true),
    ("::1", "::1", true),
    ("fd00:9::1", "fd00:9::1", true),
    ("127.0.0.5", "127.0.0.1", false),
    ("127.0.0.1", "10.9.9.1", false),
    ("10.9.9.2", "10.9.9.1", false),
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        routes("local peers", &ROUTES, false),
        routes("local peers of a relaxed server", &ROUTES, true),
        inherited(routes("local peers on a dual-stack socket", &MAPPED_ROUTES, false), &["-systemd"], false),
        inherited(
            routes("local peers of a relaxed server on a dual-stack socket", &MAPPED_ROUTES, true),
            &["-systemd", "-relaxed_command_check"],
            true,
        ),
        nobody_kills_from_afar(),
        unix(),
        another_host(),
    ]
}

/// A request, and how the response begins for local and remote peers; empty for no response.
struct Question {
    what: &'static str,
    request: Vec<u8>,
    near: &'static [u8],
    far: &'static [u8],
}

/// On a relaxed server, STOP can be tried without ending the server; otherwise KILL with a live node can.
fn questions(relaxed: bool) -> [Question; 4] {
    let question = |what, request, near, far| Question { what, request, near, far };
    [
        question("NAMES", names(), b"\0\0\x11\x11", b"\0\0\x11\x11"),
        question("PORT2", port2("nobody"), b"w\x01", b"w\x01"),
        question("DUMP", dump(), b"\0\0\x11\x11", b""),
        if relaxed {
            question("STOP", stop("nobody"), b"NOEXISTSTOPPED", b"")
        } else {
            question("KILL", kill(), b"NO", b"")
        },
    ]
}

/// Tries every request on every route.
fn routes(name: &'static str, routes: &'static [(&str, &str, bool)], relaxed: bool) -> Case {
    let expected: Vec<String> = routes
        .iter()
        .map(|(from, to, local)| format!("{from} to {to}: {}", if *local { "local" } else { "not local" }))
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let case = case(name).expect(&expected).play(move |t| try_routes(t, routes, relaxed));
    if relaxed { case.args(&["-relaxed_command_check"]) } else { case }
}

fn try_routes(t: &Stage<'_>, routes: &[(&str, &str, bool)], relaxed: bool) {
    // While a node is registered, KILL is answered but has no effect.
    let _node = t.register("node");
    for (from, to, _) in routes {
        let who = format!("{from} to {to}");
        let (mut near, mut far, mut answers) = (true, true, Vec::new());
        for Question { what, request, near: if_near, far: if_far } in questions(relaxed) {
            let peer = t.dial_between(&who, from, to);
            peer.send(&request);
            let answer = peer.all();
            let begins = |wanted: &[u8]| answer.starts_with(wanted) && answer.is_empty() == wanted.is_empty();
            near &= begins(if_near);
            far &= begins(if_far);
            answers.push(format!("{what} {}", printable(&answer)));
        }
        let peer = t.dial_between(&who, from, to);
        peer.send(&alive2(&who));
        let registration = peer.all_of(6);
        answers.push(format!("ALIVE2 {}", printable(&registration)));
        if near && registration.starts_with(b"v\0") {
            peer.note("local");
        } else if far && registration.is_empty() {
            peer.note("not local");
        } else {
            peer.note(&format!("mixed: {}", answers.join(", ")));
        }
    }
}

/// Plays a case on a server that inherits one socket for IPv4 and IPv6.
fn inherited(case: Case, args: &'static [&'static str], relaxed: bool) -> Case {
    case.nothing_started().needs_systemd().play(move |t| {
        let socket = dual_stack(t.address().port());
        t.server = Some(spawn_with_sockets(t, vec![socket], args));
        try_routes(t, &MAPPED_ROUTES, relaxed);
    })
}

/// A remote peer may not kill even a relaxed and idle server.
fn nobody_kills_from_afar() -> Case {
    case("kill from afar")
        .args(&["-relaxed_command_check"])
        .expect(&["kill: eof", "stop: eof", "server: lives", "left: node"])
        .play(|t| {
            let _node = t.register("node");
            for (who, request) in [("kill", kill()), ("stop", stop("node"))] {
                let peer = t.dial_between(who, "10.9.9.2", "10.9.9.1");
                peer.send(&request);
                peer.reads_to_end();
            }
            t.server_lives();
            t.lists("left");
        })
}

/// A Unix socket has no addresses, so its peers do not count as local.
fn unix() -> Case {
    case("an inherited Unix socket")
        .nothing_started()
        .needs_systemd()
        .expect(&[
            r"NAMES: \x00\x00\x11\x11 eof",
            r"PORT2: w\x01 eof",
            "DUMP: eof",
            "KILL: eof",
            "STOP: eof",
            "ALIVE2: eof",
            r"NAMES again: \x00\x00\x11\x11 eof",
        ])
        .play(|t| {
            let path = t.dir.path().join("socket");
            let socket: OwnedFd = unix_listener(&path);
            t.server = Some(spawn_with_sockets(t, vec![socket], &["-systemd", "-relaxed_command_check"]));
            let requests = [
                ("NAMES", names()),
                ("PORT2", port2("nobody")),
                ("DUMP", dump()),
                ("KILL", kill()),
                ("STOP", stop("nobody")),
                ("ALIVE2", alive2("node")),
                ("NAMES again", names()),
            ];
            for (who, request) in requests {
                let peer = t.dial_unix(who, &path);
                peer.send(&request);
                peer.reads_to_end();
            }
        })
}

fn another_host() -> Case {
    case("another host")
        .alone()
        .expect(&[
            r"NAMES: \x00\x00\x11\x11name node at port 4000\n",
            r"PORT2: w\x00\x0f\xa0M\x00\x00\x06\x00\x05\x00\x04node\x00\x00",
            "ALIVE2: ",
            "DUMP: ",
            "KILL: ",
            "STOP: ",
            "server: lives",
            "left: node",
        ])
        .args(&["-relaxed_command_check"])
        .play(|t| {
            let far = NetNs::new();
            t.netns.ip(&[
                "link",
                "add",
                "cable",
                "type",
                "veth",
                "peer",
                "name",
                "cable",
                "netns",
                far.name(),
            ]);
            for (host, address) in [(t.netns, "10.8.0.1/24"), (&far, "10.8.0.2/24")] {
                host.ip(&["addr", "add", address, "dev", "cable"]);
                host.ip(&["link", "set", "cable", "up"]);
            }
            let _node = t.register("node");
            let requests = [
                ("NAMES", names()),
                ("PORT2", port2("node")),
                ("ALIVE2", alive2("far")),
                ("DUMP", dump()),
                ("KILL", kill()),
                ("STOP", stop("node")),
            ];
            for (what, request) in requests {
                let answer = far.enter(|| {
                    let mut socket = TcpStream::connect("10.8.0.1:4369").expect("a connection between hosts");
                    socket.write_all(&request).expect("sending");
                    let mut answer = Vec::new();
                    socket.read_to_end(&mut answer).expect("reading to the end");
                    answer
                });
                t.note(&format!("{what}: {}", printable(&answer)));
            }
            t.server_lives();
            t.lists("left");
        })
}
