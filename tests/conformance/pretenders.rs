//! The client commands against servers that are not an epmd or misbehave.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::battery::{Case, case};
use crate::harness::program::run;
use crate::harness::{PATIENCE, wait_until};
use crate::sockets;
use crate::stage::{Stage, said};

/// What a fake server does with its one client.
#[derive(Clone, Copy, Debug)]
enum Manners {
    Says(&'static [u8]),
    Resets,
}

/// Answers one client and returns its request.
fn pretend(listener: &TcpListener, manners: Manners) -> Vec<u8> {
    listener.set_nonblocking(true).expect("a listener");
    let mut accepted = None;
    wait_until("a client", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut client, _) = accepted.expect("a client");
    client.set_nonblocking(false).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a connection");
    let mut request = vec![0; 2];
    client.read_exact(&mut request).expect("a length");
    let length = u16::from_be_bytes([request[0], request[1]]);
    let mut body = vec![0; usize::from(length)];
    client.read_exact(&mut body).expect("a request");
    match manners {
        Manners::Says(bytes) => client.write_all(bytes).expect("a client that listens"),
        Manners::Resets => set_socket_linger(&client, Some(Duration::ZERO)).expect("an open connection"),
    }
    body
}

/// The listener of the fake servers. One listener serves a whole case, because a process that another thread is
/// starting holds a copy of every descriptor, and with it the port, until it execs.
fn pretender() -> TcpListener {
    TcpListener::bind("127.0.0.1:4369").expect("a free port")
}

/// Runs a command against a fake server.
fn against(t: &Stage<'_>, listener: &TcpListener, what: &str, args: &[&str], manners: Manners) {
    let output = std::thread::scope(|scope| {
        scope.spawn(|| pretend(listener, manners));
        run(t.command(args))
    });
    t.note(&format!("{what}: {}", said(&output)));
}

/// The commands against a server whose responses differ from epmd's.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("a server that closes without an answer")
            .nothing_started()
            .expect(&[
                r"names: exit 1, stdout epmd: no response from local epmd\n",
                r"names, 3 bytes: exit 1, stdout epmd: no response from local epmd\n",
                r"dump: exit 1, stdout epmd: no response from local epmd\n",
                "started: exit 1",
                r"kill: exit 1, stdout epmd: local epmd responded with <>\n",
                r"stop: exit 1, stdout epmd: local epmd responded with <>\n",
            ])
            .play(|t| {
                let at = pretender();
                against(t, &at, "names", &["-names"], Manners::Says(b""));
                against(t, &at, "names, 3 bytes", &["-names"], Manners::Says(b"\0\0\x11"));
                against(t, &at, "dump", &["-dump"], Manners::Says(b""));
                against(t, &at, "started", &["-started"], Manners::Says(b""));
                against(t, &at, "kill", &["-kill"], Manners::Says(b""));
                against(t, &at, "stop", &["-stop", "node"], Manners::Says(b""));
            }),
        case("a server that answers strangely")
            .nothing_started()
            .expect(&[
                r"names: exit 0, stdout epmd: up and running on port 1 with data:\nanything \x00\xff",
                "started: exit 0",
                r"kill, other: exit 1, stdout Killing not allowed - living nodes in database.\n",
                r"kill, more: exit 0, stdout Killed\n",
                r"kill, less: exit 1, stdout epmd: local epmd responded with <>\n",
                r"stop, other: exit 0, stdout 1%s4567\n",
                r"stop, NUL: exit 0, stdout 12\n",
                r"stop, more: exit 0, stdout STOPPED\n",
                r"stop, less: exit 1, stdout epmd: local epmd responded with <>\n",
            ])
            .play(|t| {
                let at = pretender();
                against(t, &at, "names", &["-names"], Manners::Says(b"\0\0\0\x01anything \0\xFF"));
                against(t, &at, "started", &["-started"], Manners::Says(b"\0\0\0\x01"));
                against(t, &at, "kill, other", &["-kill"], Manners::Says(b"XY"));
                against(t, &at, "kill, more", &["-kill"], Manners::Says(b"OKAY"));
                against(t, &at, "kill, less", &["-kill"], Manners::Says(b"O"));
                against(t, &at, "stop, other", &["-stop", "node"], Manners::Says(b"1%s4567"));
                against(t, &at, "stop, NUL", &["-stop", "node"], Manners::Says(b"12\x004567"));
                against(t, &at, "stop, more", &["-stop", "node"], Manners::Says(b"STOPPEDX"));
                against(t, &at, "stop, less", &["-stop", "node"], Manners::Says(b"STOPPE"));
            }),
        case("a server that resets")
            .nothing_started()
            .expect(&[
                r"kill: exit 1, stdout epmd: failed to read answer from local epmd\n",
                r"stop: exit 1, stdout epmd: failed to read answer from local epmd\n",
            ])
            .play(|t| {
                let at = pretender();
                against(t, &at, "kill", &["-kill"], Manners::Resets);
                against(t, &at, "stop", &["-stop", "node"], Manners::Resets);
            }),
        case("what the commands send")
            .nothing_started()
            .expect(&["-names: n", "-dump: d", "-started: n", "-kill: k", r"-stop: sno\xc3\xa9"])
            .play(|t| {
                let listener = pretender();
                for args in [&["-names"][..], &["-dump"], &["-started"], &["-kill"], &["-stop", "no\u{E9}"]] {
                    let asked = std::thread::scope(|scope| {
                        let server = scope.spawn(|| pretend(&listener, Manners::Says(b"")));
                        run(t.command(args));
                        server.join().expect("a pretended server")
                    });
                    t.note(&format!("{}: {}", args[0], asked.escape_ascii()));
                }
            }),
        // IPv6 is tried first, then IPv4 if nothing is listening.
        case("the loopback that is asked").nothing_started().expect(&["both: ::1", "one: 127.0.0.1"]).play(
            |t| {
                let v4 = pretender();
                let v6 = TcpListener::bind("[::1]:4369").expect("a free port");
                let asks = |what: &str, listener: &TcpListener| {
                    std::thread::scope(|scope| {
                        scope.spawn(|| pretend(listener, Manners::Says(b"OK")));
                        run(t.command(&["-kill"]));
                    });
                    t.note(&format!("{what}: {}", listener.local_addr().expect("an address").ip()));
                };
                asks("both", &v6);
                drop(v6);
                wait_until("the end of a listener", || sockets::listeners(4369).len() == 1);
                asks("one", &v4);
            },
        ),
    ]
}
