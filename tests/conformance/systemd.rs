//! Socket activation and notifications of the service manager.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::battery::{Case, case};
use crate::harness::program::{Program, run};
use crate::harness::{PATIENCE, wait_until};
use crate::peer::printable;
use crate::sockets;
use crate::stage::{Stage, ending, said};
use crate::wire::{kill, names};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = activation();
    cases.extend(refusals());
    cases.extend(notifications());
    cases.into_iter().map(Case::needs_systemd).collect()
}

/// A listening socket for IPv4 and IPv6 on all addresses, as `BindIPv6Only=both` makes it.
pub(crate) fn dual_stack(port: u16) -> OwnedFd {
    let socket = tcp6();
    set_ipv6_v6only(&socket, false).expect("a dual-stack socket");
    bind(&socket, &SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).expect("a free port");
    listen(&socket, 100).expect("listening");
    socket
}

fn tcp6() -> OwnedFd {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("a socket");
    set_socket_reuseaddr(&socket, true).expect("a socket option");
    socket
}

fn tcp4(address: &str) -> OwnedFd {
    std::net::TcpListener::bind(address).expect("a free address").into()
}

/// A listening Unix socket.
pub(crate) fn unix_listener(path: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("a socket");
    bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free path");
    listen(&socket, 100).expect("listening");
    socket
}

/// Starts the program under test as a service manager would, with these sockets from descriptor 3 on.
pub(crate) fn spawn_with_sockets(t: &Stage<'_>, sockets: Vec<OwnedFd>, args: &[&str]) -> Program {
    spawn(t, sockets, args, &[])
}

/// The shell moves the sockets into place and execs the program, so that LISTEN_PID is right. Only standard streams can
/// be passed to a shell, so the sockets are its input and its output.
fn spawn(t: &Stage<'_>, sockets: Vec<OwnedFd>, args: &[&str], env: &[(&str, &str)]) -> Program {
    let moves = ["</dev/null", "3<&0 </dev/null", "3<&0 4<&1 </dev/null >/dev/null"][sockets.len()];
    let mut command = announcing(t, args, &sockets.len().to_string(), "$$", moves);
    command.envs(env.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sockets = sockets.into_iter();
    if let Some(first) = sockets.next() {
        command.stdin(first);
    }
    if let Some(second) = sockets.next() {
        command.stdout(second);
    }
    let child = command.spawn().expect("a shell");
    Program::adopt(child, &format!("{command:?}"))
}

/// A command that execs the program under test after announcing `count` sockets for the process `pid`.
fn announcing(t: &Stage<'_>, args: &[&str], count: &str, pid: &str, moves: &str) -> Command {
    let script =
        format!("LISTEN_FDS={count} LISTEN_PID={pid}; export LISTEN_FDS LISTEN_PID; exec \"$@\" {moves}");
    let plain = t.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn note_listeners(t: &Stage<'_>) {
    let listeners: Vec<String> = sockets::all_listeners().iter().map(ToString::to_string).collect();
    t.note(&format!("listeners: {}", listeners.join(" ")));
}

/// Requests the names at an address.
fn ask_at(t: &Stage<'_>, address: &str) {
    let client = t.dial_at(address, address.parse().expect("an address"));
    client.send(&names());
    client.reads_to_end();
}

fn activation() -> Vec<Case> {
    vec![
        case("one socket for both families")
            .nothing_started()
            .expect(&[
                r"127.0.0.1:5001: \x00\x00\x11\x11 eof",
                r"[::1]:5001: \x00\x00\x11\x11 eof",
                "listeners: [::]:5001",
            ])
            .play(|t| {
                t.server = Some(spawn(t, vec![dual_stack(5001)], &["-systemd"], &[]));
                ask_at(t, "127.0.0.1:5001");
                ask_at(t, "[::1]:5001");
                note_listeners(t);
            }),
        case("two sockets, and no others")
            .nothing_started()
            .expect(&[
                r"10.9.9.1:5001: \x00\x00\x11\x11 eof",
                r"127.0.0.1:5002: \x00\x00\x11\x11 eof",
                "listeners: 10.9.9.1:5001 127.0.0.1:5002",
            ])
            .play(|t| {
                let sockets = vec![tcp4("10.9.9.1:5001"), tcp4("127.0.0.1:5002")];
                t.server = Some(spawn(t, sockets, &["-systemd", "-address", "10.9.9.2"], &[]));
                ask_at(t, "10.9.9.1:5001");
                ask_at(t, "127.0.0.1:5002");
                note_listeners(t);
            }),
        case("the reported port is the configured one")
            .nothing_started()
            .expect(&[
                r"127.0.0.1:5001: \x00\x00\x17p eof",
                "listeners: 127.0.0.1:5001",
                "server: gone",
                r"127.0.0.1:5001: \x00\x00\x17q eof",
            ])
            .play(|t| {
                t.server = Some(spawn(t, vec![tcp4("127.0.0.1:5001")], &["-systemd", "-port", "6000"], &[]));
                ask_at(t, "127.0.0.1:5001");
                note_listeners(t);
                t.server = None;
                t.note("server: gone");
                let port = [("ERL_EPMD_PORT", "6001")];
                t.server = Some(spawn(t, vec![tcp4("127.0.0.1:5001")], &["-systemd"], &port));
                ask_at(t, "127.0.0.1:5001");
            }),
        case("a kill ends a server with inherited sockets")
            .nothing_started()
            .expect(&["127.0.0.1:5001: OK eof", "server: exit 0"])
            .play(|t| {
                t.server = Some(spawn(t, vec![tcp4("127.0.0.1:5001")], &["-systemd"], &[]));
                let client = t.dial_at("127.0.0.1:5001", "127.0.0.1:5001".parse().expect("an address"));
                client.send(&kill());
                client.reads_to_end();
                t.server_ends();
            }),
        case("sockets are ignored without the flag")
            .nothing_started()
            .expect(&[r"127.0.0.1:4369: \x00\x00\x11\x11 eof", "inherited: open"])
            .play(|t| {
                t.server = Some(spawn(t, vec![tcp4("127.0.0.1:5001")], &[], &[]));
                t.wait_until_listening();
                let inherited = t.dial_at("inherited", "127.0.0.1:5001".parse().expect("an address"));
                inherited.send(&names());
                ask_at(t, "127.0.0.1:4369");
                t.stays_open(&inherited);
            }),
    ]
}

/// A server that expects sockets and gets none does not start.
fn refusals() -> Vec<Case> {
    let fails = |name: &'static str, count: &'static str, pid: &'static str| {
        case(name).nothing_started().expect(&["exit 1 with a message", "listeners: "]).play(move |t| {
            let output = run(announcing(t, &["-systemd"], count, pid, ""));
            let message =
                output.status.code() == Some(1) && !output.stderr.is_empty() && output.stdout.is_empty();
            t.note(&if message { "exit 1 with a message".to_owned() } else { said(&output) });
            note_listeners(t);
        })
    };
    vec![
        case("no sockets are announced").nothing_started().expect(&["exit 1 with a message"]).play(|t| {
            let output = run(t.command(&["-systemd"]));
            let message =
                output.status.code() == Some(1) && !output.stderr.is_empty() && output.stdout.is_empty();
            t.note(&if message { "exit 1 with a message".to_owned() } else { said(&output) });
        }),
        fails("zero sockets are announced", "0", "$$"),
        fails("the sockets are another process's", "1", "1"),
        fails("the count of sockets is not a number", "many", "$$"),
        fails("17 sockets are announced", "17", "$$"),
        fails("more sockets are announced than there are", "2", "$$"),
        fails("no process is announced", "1", "''"),
        case("inherited sockets do not reach a daemon")
            .nothing_started()
            .expect(&["launcher: exit 0", "nothing is listening"])
            .play(|t| {
                let mut launcher = spawn(t, vec![tcp4("127.0.0.1:5001")], &["-systemd", "-daemon"], &[]);
                let status = launcher.wait(PATIENCE);
                t.note(&format!("launcher: {}", ending(status)));
                wait_until("the daemon to fail", || {
                    t.netns.processes().is_empty() && sockets::all_listeners().is_empty()
                });
                t.note("nothing is listening");
            }),
    ]
}

/// A notification socket and its name.
fn manager(t: &Stage<'_>) -> (UnixDatagram, String) {
    let path = t.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a free path");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    (socket, path.to_str().expect("a path in UTF-8").to_owned())
}

/// Notes a datagram, with the process id of the server replaced.
fn note_datagram(t: &Stage<'_>, socket: &UnixDatagram) {
    let mut buffer = [0; 4096];
    let text = match socket.recv(&mut buffer) {
        Ok(count) => printable(&buffer[..count]),
        Err(error) => error.kind().to_string(),
    };
    let pid = format!("MAINPID={}", t.server_pid());
    t.note(&format!("notified: {}", text.replace(&pid, "MAINPID=<pid>")));
}

/// Notes that no datagram is waiting.
fn note_silence(t: &Stage<'_>, socket: &UnixDatagram) {
    socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time limit");
    let mut buffer = [0; 4096];
    match socket.recv(&mut buffer) {
        Ok(count) => t.note(&format!("notified: {}", printable(&buffer[..count]))),
        Err(_) => t.note("not notified"),
    }
}

fn notifications() -> Vec<Case> {
    const READY: &str = r"notified: READY=1\nSTATUS=Processing port mapping requests...\nMAINPID=<pid>";
    let kill_it = |t: &mut Stage<'_>| {
        let client = t.dial_at("kill", "127.0.0.1:5001".parse().expect("an address"));
        client.send(&kill());
        client.reads_to_end();
        t.server_ends();
    };
    vec![
        case("the manager is notified of start and end")
            .nothing_started()
            .expect(&[
                READY,
                "not notified",
                "kill: OK eof",
                "server: exit 0",
                r"notified: STATUS=Exited.\nERRNO=0",
                "not notified",
            ])
            .play(move |t| {
                let (socket, name) = manager(t);
                let sockets = vec![tcp4("127.0.0.1:5001")];
                t.server = Some(spawn(t, sockets, &["-systemd"], &[("NOTIFY_SOCKET", &name)]));
                note_datagram(t, &socket);
                note_silence(t, &socket);
                kill_it(t);
                socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
                note_datagram(t, &socket);
                note_silence(t, &socket);
            }),
        case("a signal ends the server without a word")
            .nothing_started()
            .expect(&[READY, "server: signal 15", "not notified"])
            .play(|t| {
                let (socket, name) = manager(t);
                let sockets = vec![tcp4("127.0.0.1:5001")];
                t.server = Some(spawn(t, sockets, &["-systemd"], &[("NOTIFY_SOCKET", &name)]));
                note_datagram(t, &socket);
                t.signal(rustix::process::Signal::TERM);
                t.server_ends();
                note_silence(t, &socket);
            }),
        case("a server without the flag sends no notification")
            .nothing_started()
            .expect(&["kill: OK eof", "server: exit 0", "not notified"])
            .play(|t| {
                let (socket, name) = manager(t);
                t.server = Some(spawn(t, Vec::new(), &[], &[("NOTIFY_SOCKET", &name)]));
                t.wait_until_listening();
                t.ask("kill", &kill());
                t.server_ends();
                note_silence(t, &socket);
            }),
        case("a manager that does not listen")
            .nothing_started()
            .expect(&[r"client: \x00\x00\x11\x11 eof"])
            .play(|t| {
                let sockets = vec![tcp4("127.0.0.1:5001")];
                let nowhere = t.dir.path().join("nowhere");
                let env = [("NOTIFY_SOCKET", nowhere.to_str().expect("a path in UTF-8"))];
                t.server = Some(spawn(t, sockets, &["-systemd"], &env));
                let client = t.dial_at("client", "127.0.0.1:5001".parse().expect("an address"));
                client.send(&names());
                client.reads_to_end();
            }),
        case("a manager in the abstract name space").nothing_started().expect(&[READY]).play(|t| {
            let address = SocketAddrUnix::new_abstract_name(b"manager").expect("a short name");
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
            let socket = socket.expect("a socket");
            bind(&socket, &address).expect("a name that is free in this network namespace");
            let socket = UnixDatagram::from(socket);
            socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            let sockets = vec![tcp4("127.0.0.1:5001")];
            t.server = Some(spawn(t, sockets, &["-systemd"], &[("NOTIFY_SOCKET", "@manager")]));
            note_datagram(t, &socket);
        }),
        case("a failed start")
            .nothing_started()
            .expect(&["exit 1", r"notified: STATUS=Exited.\nERRNO=1"])
            .play(|t| {
                let (socket, name) = manager(t);
                let mut command = t.command(&["-systemd"]);
                command.env("NOTIFY_SOCKET", &name);
                t.note(&ending(run(command).status));
                socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time limit");
                let mut buffer = [0; 4096];
                match socket.recv(&mut buffer) {
                    Ok(count) => t.note(&format!("notified: {}", printable(&buffer[..count]))),
                    Err(_) => t.note("not notified"),
                }
            }),
    ]
}
