//! Nodes in separate processes: further instances of this test binary.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use crate::budget;
use crate::client::{Client, Verdict};
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::wire::Alive2;
use crate::world::starting;

/// The environment variable that makes an instance act as a companion.
const PART: &str = "PMD_HOSTILE_PART";
/// Printed by a companion once its nodes are registered.
const READY: &str = "all registered";

/// A process with registered nodes.
#[derive(Debug)]
pub(crate) struct Companion(Program);

impl Companion {
    /// A process that registers one node, and optionally listens on its port.
    pub(crate) fn holding(daemon: SocketAddr, name: &str, port: u16, listens: bool) -> Companion {
        Companion::start(format!("hold {daemon} {name} {port} {listens}"))
    }

    /// A process that registers the nodes with these numbers; see [`crowd_node`].
    pub(crate) fn crowd(daemon: SocketAddr, numbers: std::ops::Range<usize>) -> Companion {
        Companion::start(format!("crowd {daemon} {} {}", numbers.start, numbers.end))
    }

    fn start(part: String) -> Companion {
        let mut command = Command::new(std::env::current_exe().expect("this test binary"));
        command.args(["--exact", "companion::plays_its_part", "--ignored", "--nocapture"]).env(PART, part);
        starting(|| Companion(Program::spawn_listening(command)))
    }

    /// Waits until all its nodes are registered.
    pub(crate) fn wait_until_registered(&mut self) {
        wait_until("a companion to register its nodes", || {
            assert!(self.0.is_running(), "the companion has ended");
            self.0.stderr().contains(READY)
        });
    }

    /// Stops the process as a debugger or `kill -STOP` does, and waits until it has stopped.
    pub(crate) fn freeze(&self) {
        self.0.freeze();
    }

    /// Continues a process that was frozen.
    pub(crate) fn thaw(&self) {
        self.0.thaw();
    }

    /// Kills the process and waits for its exit.
    pub(crate) fn kill(mut self) {
        self.0.kill();
    }
}

/// The node with this number in a crowd.
pub(crate) fn crowd_node(number: usize) -> Alive2 {
    let port = u16::try_from(1024 + number % 60_000).expect("a port");
    Alive2::new(format!("crowd{number}")).port(port)
}

#[test]
#[ignore = "not a test: other tests start it as a separate process"]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let words: Vec<&str> = part.split(' ').collect();
    match words.as_slice() {
        ["hold", daemon, name, port, listens] => {
            let port = port.parse().expect("a port");
            let listening = *listens == "true";
            let _listener =
                listening.then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
            play(daemon, vec![Alive2::new(name).port(port)]);
        }
        ["crowd", daemon, first, end] => {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            play(daemon, (number(first)..number(end)).map(crowd_node).collect());
        }
        _ => panic!("no such part: {part}"),
    }
}

/// Registers the nodes and keeps them until standard input ends.
fn play(daemon: &str, nodes: Vec<Alive2>) {
    budget::descriptor_limit();
    let daemon: SocketAddr = daemon.parse().expect("an address");
    let register = |node: Alive2| {
        let client = Client::sending(daemon, &node.bytes());
        assert!(matches!(client.verdict(), Verdict::Accepted(_)), "not registered");
        client
    };
    let _nodes: Vec<Client> = nodes.into_iter().map(register).collect();
    // A single write, so that it is read in one piece.
    std::io::stderr().write_all(READY.as_bytes()).expect("standard error");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
