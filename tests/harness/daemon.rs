//! Helpers for daemons under test, wherever they run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use super::program::Program;
use super::wire::Alive2;
use super::{PATIENCE, wait_until};

/// Variables that affect a port mapper, its commands or Erlang; they are removed unless a test sets them.
const VARIABLES: [&str; 17] = [
    "ERL_EPMD_ADDRESS",
    "ERL_EPMD_PORT",
    "ERL_EPMD_RELAXED_COMMAND_CHECK",
    "ERL_INETRC",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "NO_COLOR",
    "PMD_CLUSTER",
    "PMD_CONFIG",
    "PMD_EPMD_JOINS",
    "PMD_HOME",
    "PMD_JOIN",
    "PMD_LOG",
    "PMD_SOCKET",
    "TZ",
];

/// Removes from a command's environment the variables set by the machine or by the caller of the tests.
pub fn without_variables(command: &mut Command) -> &mut Command {
    VARIABLES.iter().fold(command, |command, name| command.env_remove(name))
}

/// Waits until the daemon answers on its control socket, which it opens last.
pub fn wait_until_up(daemon: &mut Program, socket: &Path) {
    wait_until(&format!("a daemon at {}", socket.display()), || {
        assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.stderr());
        UnixStream::connect(socket).is_ok()
    });
}

/// The ALIVE2_REQ of a node.
pub fn alive2(name: &str, port: u16) -> Vec<u8> {
    Alive2::new(name).port(port).bytes()
}

/// Registers a node with the port mapper at `address`; none if it refuses or nothing is listening.
pub fn register(address: SocketAddr, name: &str, port: u16) -> Option<TcpStream> {
    accepted(send(address, &alive2(name, port))?).map(|(stream, _)| stream)
}

/// Sends a request to a port mapper; none if nothing is listening.
pub fn send(address: SocketAddr, request: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request).ok()?;
    Some(stream)
}

/// The connection of a node and its creation, once the registration that was sent on it is accepted.
pub fn accepted(mut stream: TcpStream) -> Option<(TcpStream, u32)> {
    let mut reply = [0; 6];
    stream.read_exact(&mut reply).ok()?;
    stream.set_read_timeout(None).ok()?;
    match reply {
        [118, 0, creation @ ..] => Some((stream, u32::from_be_bytes(creation))),
        _ => None,
    }
}
