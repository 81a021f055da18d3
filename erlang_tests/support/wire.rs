//! Enough of the EPMD protocol for the tests to query a daemon themselves.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::harness::netns::Host;

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
    let mut body = vec![120];
    body.extend(port.to_be_bytes());
    body.extend([77, 0, 0, 6, 0, 6]);
    body.extend(u16::try_from(name.len()).expect("a short name").to_be_bytes());
    body.extend(name.as_bytes());
    body.extend([0, 0]);
    let mut stream = send(host, IpAddr::V4(Ipv4Addr::LOCALHOST), &body).expect("sending a registration");
    let mut reply = [0; 6];
    stream.read_exact(&mut reply).expect("the reply to a registration");
    let [118, result, creation @ ..] = reply else { panic!("an odd reply to a registration: {reply:?}") };
    (result == 0).then(|| Registration { creation: u32::from_be_bytes(creation), stream })
}

/// The host's daemon's response to NAMES at `address`, without the leading port; `None` if nothing listens.
pub fn names_at(host: &Host, address: IpAddr) -> Option<String> {
    let mut stream = send(host, address, &[110]).ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    reply.get(4..).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Sends one request from a process on `host`.
fn send(host: &Host, address: IpAddr, body: &[u8]) -> io::Result<TcpStream> {
    let length = u16::try_from(body.len()).expect("a short request").to_be_bytes();
    host.netns.enter(|| {
        let mut stream = TcpStream::connect((address, PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&[&length, body].concat())?;
        Ok(stream)
    })
}
