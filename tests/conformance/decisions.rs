//! Deliberate differences from stock epmd; each case first shows the defect in stock.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::battery::{Case, Divergence, case};
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::peer::Peer;
use crate::sockets;
use crate::stage::{Node, Stage};
use crate::wire::{Alive2, alive2, names, port2};

const WHY_AGAIN: &str =
    "a node that is restarted at once must not be refused because of its own old connection";
/// How long a server that does not answer is watched. There is no event to wait for; one that answers is much faster.
const SILENCE: Duration = Duration::from_secs(5);
const WHY_STOPPED: &str = "a holder that is frozen and no longer listens will never answer";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = descriptors();
    cases.extend(reregistrations());
    cases.extend(stopped_holders());
    cases.push(stalled_reader());
    cases
}

/// Raises this process's descriptor limit, because it holds the other end of every connection.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a limit");
}

fn descriptors() -> Vec<Case> {
    vec![
        case("more connections than descriptors")
            .alone()
            .wrapped(&["prlimit", "--nofile=128:128"])
            .expect(&["flood: the server has ended", "server: exit 1"])
            .repaired(&["flood: a lookup waits", "server: lives"])
            .diverges(
                Divergence::DescriptorsUsedUp,
                &["flood: a lookup is answered", "server: lives"],
                "clients must not be able to end the server and with it all registrations",
            )
            .play(|t| {
                raise_own_limit();
                let flood: Vec<Peer> = (0..200).map_while(|_| t.try_dial("flood")).collect();
                let outcome = outcome_of_flood(t);
                t.note(&format!("flood: {outcome}"));
                drop(flood);
                if outcome == ENDED { t.server_ends() } else { t.server_lives() }
            }),
        case("more registrations than descriptors")
            .alone()
            .wrapped(&["prlimit", "--nofile=128:128"])
            .expect(&["flood: the server has ended", "server: exit 1"])
            .repaired(&["flood: a lookup waits", "server: lives", "left: none"])
            .diverges(
                Divergence::DescriptorsUsedUp,
                &["flood: a lookup is answered", "server: lives", "left: none"],
                "a full server must still answer lookups",
            )
            .play(|t| {
                raise_own_limit();
                let flood: Vec<Peer> = (0..200)
                    .map_while(|number| {
                        let peer = t.try_dial("flood")?;
                        peer.try_send(&alive2(format!("n{number}"))).then_some(peer)
                    })
                    .collect();
                let outcome = outcome_of_flood(t);
                t.note(&format!("flood: {outcome}"));
                drop(flood);
                if outcome == ENDED {
                    t.server_ends();
                } else {
                    t.server_lives();
                    wait_until("everybody to be gone", || t.names_text().is_some_and(|text| text.is_empty()));
                    t.lists("left");
                }
            }),
        case("1100 registrations with descriptors to spare")
            .alone()
            .wrapped(&["prlimit", "--nofile=4096:4096"])
            .expect(&[
                "registered: as many as fit below descriptor 1024",
                "others: closed",
                "newcomer: closed",
            ])
            .diverges(
                Divergence::DescriptorCeiling,
                &["registered: all", r"newcomer: w\x01"],
                "the ceiling is an accident of `select`",
            )
            .play(|t| {
                raise_own_limit();
                let open =
                    std::fs::read_dir(format!("/proc/{}/fd", t.server_pid())).expect("a server").count();
                let peers: Vec<Peer> = (0..1100).map(|number| t.dial(&format!("n{number}"))).collect();
                let registered = peers
                    .iter()
                    .enumerate()
                    .filter(|(number, peer)| peer.try_send(&alive2(format!("n{number}"))))
                    .filter(|(_, peer)| peer.all_of(6).starts_with(b"v\0"))
                    .count();
                match registered {
                    1100 => t.note("registered: all"),
                    few if few + open == 1024 => {
                        t.note("registered: as many as fit below descriptor 1024");
                        t.note("others: closed");
                    }
                    other => t.note(&format!("registered: {other} beside {open}")),
                }
                let newcomer = t.dial("newcomer");
                let answer = if newcomer.try_send(&port2("nobody")) { newcomer.all() } else { Vec::new() };
                newcomer.note(if answer == b"w\x01" { r"w\x01" } else { "closed" });
            }),
    ]
}

const ENDED: &str = "the server has ended";

/// What becomes of a lookup that is sent last.
fn outcome_of_flood(t: &mut Stage<'_>) -> &'static str {
    let asked = t.try_dial("lookup").filter(|peer| peer.try_send(&port2("nobody")));
    let server = t.server.as_mut().expect("a server");
    let deadline = Instant::now() + SILENCE;
    while Instant::now() < deadline {
        if !server.is_running() {
            return ENDED;
        }
        if let Some(asked) = asked.as_ref().filter(|asked| asked.has_news()) {
            // The connection also ends with the server, slightly before its process does.
            return if asked.all() == b"w\x01" { "a lookup is answered" } else { ENDED };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "a lookup waits"
}

/// The end of the old connection and the new registration reach the server at the same time: it is stopped while both
/// are sent. Stock checks the new connection first because it gets a lower slot, which the filler leaves free.
fn reregister(t: &mut Stage<'_>, leave: fn(Peer) -> Option<Peer>) {
    let filler = t.register("filler");
    let node = t.register("node");
    drop(filler);
    t.wait_until_unregistered(b"filler");
    t.stop_server();
    let (ours, server) = node.peer.ends();
    let _left = leave(node.peer);
    wait_until("the end to arrive", || sockets::has_news_for_server(server, ours));
    let again = t.dial("again");
    again.send(&Alive2::new("node").port(4001).bytes());
    t.continue_server();
    again.reads_alive2_reply();
    t.ask("lookup", &port2("node"));
}

fn reregistrations() -> Vec<Case> {
    let found = r"lookup: w\x00\x0f\xa1M\x00\x00\x06\x00\x05\x00\x04node\x00\x00 eof";
    let again = |name: &'static str, leave: fn(Peer) -> Option<Peer>| {
        case(name)
            .expect(&[r"again: v\x01\x00\x00\x00c", r"lookup: w\x01 eof"])
            .diverges(Divergence::Reregistration, &[r"again: v\x00<creation>", found], WHY_AGAIN)
            .play(move |t| {
                reregister(t, leave);
            })
    };
    vec![
        again("a node that closed and registers again at once", |peer| {
            drop(peer);
            None
        }),
        again("a node that half-closed and registers again at once", |peer| {
            peer.half_close();
            Some(peer)
        }),
        again("a node that was reset and registers again at once", |peer| {
            peer.reset();
            None
        }),
        again("a node that sent nonsense and registers again at once", |peer| {
            peer.send(b"?");
            Some(peer)
        }),
        case("the creation of a node that registers again at once")
            .expect(&["refused"])
            .diverges(Divergence::Reregistration, &["one more"], WHY_AGAIN)
            .play(|t| {
                let filler = t.register("filler");
                let node = t.register("node");
                drop(filler);
                t.wait_until_unregistered(b"filler");
                t.stop_server();
                let Node { peer, creation, .. } = node;
                let (ours, server) = peer.ends();
                drop(peer);
                wait_until("the end to arrive", || sockets::has_news_for_server(server, ours));
                let again = t.dial("again");
                again.send(&alive2("node"));
                t.continue_server();
                let answer = again.all_of(6);
                let next = [&b"v\0"[..], &(creation + 1).to_be_bytes()].concat();
                t.note(if answer == next { "one more" } else { "refused" });
            }),
        // Either may be answered first here; what counts is that the live holder keeps the name.
        case("a holder that is alive keeps its name")
            .expect(&[r"again: v\x01\x00\x00\x00c", "node: open", "left: node"])
            .play(|t| {
                let node = t.register("node");
                t.stop_server();
                let again = t.dial("again");
                again.send(&alive2("node"));
                t.continue_server();
                again.reads_alive2_reply();
                t.stays_open(&node.peer);
                t.lists("left");
            }),
    ]
}

/// Passes a registered connection to a separate process.
fn held_elsewhere(t: &Stage<'_>, port: u16) -> Program {
    let node = t.register_as(&Alive2::new("node").port(port));
    let mut holder = Command::new("sleep");
    holder.arg("1000").stdin(Stdio::from(OwnedFd::from(node.peer.into_stream()))).stdout(Stdio::null());
    Program::adopt(holder.spawn().expect("a process that waits"), "the holder")
}

/// The holder's distribution port, with or without a listener.
fn distribution_port(listening: bool) -> (u16, Option<TcpListener>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    (port, listening.then_some(listener))
}

fn stopped_holders() -> Vec<Case> {
    let held = |name: &'static str, stopped: bool, listening: bool| {
        case(name).expect(&[r"again: v\x01\x00\x00\x00c", "left: node"]).play(move |t| {
            let (port, _listener) = distribution_port(listening);
            wait_until("the port to be as it should", || is_listening(port) == listening);
            let holder = held_elsewhere(t, port);
            if stopped {
                holder.freeze();
            }
            let again = t.dial("again");
            again.send(&Alive2::new("node").port(4001).bytes());
            again.reads_alive2_reply();
            t.lists("left");
        })
    };
    vec![
        held("a holder that was stopped and does not listen loses its name", true, false).diverges(
            Divergence::StoppedHolder,
            &[r"again: v\x00<creation>", "left: node"],
            WHY_STOPPED,
        ),
        held("a holder that was stopped but listens keeps its name", true, true),
        case("a holder that was stopped but receives on its UDP port keeps its name")
            .expect(&[r"again: v\x01\x00\x00\x00c", "left: node"])
            .play(|t| {
                // Distribution over QUIC.
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
                let port = socket.local_addr().expect("an address").port();
                let holder = held_elsewhere(t, port);
                holder.freeze();
                let again = t.dial("again");
                again.send(&Alive2::new("node").port(4001).bytes());
                again.reads_alive2_reply();
                t.lists("left");
            }),
        held("a holder that runs but does not listen keeps its name", false, false),
        held("a holder that runs and listens keeps its name", false, true),
    ]
}

fn is_listening(port: u16) -> bool {
    !sockets::listeners(port).is_empty()
}

/// A client that requests a long list and does not read it. The socket buffers are made small first.
fn stalled_reader() -> Case {
    case("a reader that stops reading")
        .alone()
        .expect(&["others: wait", "list: complete in the end", r"others: w\x01 in the end"])
        .diverges(
            Divergence::BlockingWrite,
            &["others: are answered", "list: complete in the end", r"others: w\x01 in the end"],
            "one bad reader must not stall the lookups of others",
        )
        .play(|t| {
            std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096")
                .expect("setting a kernel parameter");
            let _nodes: Vec<Node> = (0..500).map(|number| t.register(format!("{number:0>250}"))).collect();
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let socket = socket.expect("a socket");
            set_socket_recv_buffer_size(&socket, 4096).expect("a smaller buffer");
            connect(&socket, &t.address()).expect("a server");
            let stalled = t.over("list", socket);
            stalled.send(&names());
            stalled.wait_until_read();
            let other = t.dial("others");
            other.send(&port2("nobody"));
            let deadline = Instant::now() + SILENCE;
            while !other.has_news() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            other.note(if other.has_news() { "are answered" } else { "wait" });
            let list = stalled.all();
            let lines = list.iter().filter(|&&byte| byte == b'\n').count();
            stalled.note(if lines == 500 { "complete in the end" } else { "incomplete" });
            let answer = other.all();
            other.note(if answer == b"w\x01" { r"w\x01 in the end" } else { "no answer" });
        })
}
