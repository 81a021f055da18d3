//! Enough of the EPMD protocol for the tests to query a daemon themselves.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::harness::daemon::{self, accepted, alive2};
use crate::harness::netns::Host;
use crate::harness::wire;

/// The port on which every mapper of these tests listens.
pub const PORT: u16 = 4369;

/// A name held by this process; dropping it closes the connection, as the death of a node does.
#[derive(Debug)]
pub struct Registration {
    /// The creation that the daemon assigned.
    pub creation: u32,
    stream: TcpStream,
}

impl Registration {
    /// Gives up the name as a crashed host or an `ei` client does: with a reset instead of a FIN.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("SO_LINGER");
    }
}

/// Registers `name` with the host's daemon; `None` if the daemon refuses.
pub fn register(host: &Host, name: &str, port: u16) -> Option<Registration> {
    let stream =
        send(host, IpAddr::V4(Ipv4Addr::LOCALHOST), &alive2(name, port)).expect("a daemon that listens");
    accepted(stream).map(|(stream, creation)| Registration { creation, stream })
}

/// The host's daemon's response to NAMES at `address`, without the leading port; `None` if nothing listens.
pub fn names_at(host: &Host, address: IpAddr) -> Option<String> {
    let mut stream = send(host, address, &wire::names())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    reply.get(4..).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Sends one request from a process on `host`.
fn send(host: &Host, address: IpAddr, request: &[u8]) -> Option<TcpStream> {
    host.netns.enter(|| daemon::send((address, PORT).into(), request))
}
