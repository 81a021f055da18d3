//! One connection to the daemon, seen from the client.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};

use crate::harness::PATIENCE;

/// The outcome of a registration request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Registered with this creation.
    Accepted(u32),
    /// The refusal of stock epmd; the connection stays open.
    Refused,
    /// Closed without a byte.
    Closed,
}

/// The client end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Client(TcpStream);

impl Client {
    /// Connects.
    pub(crate) fn connect(to: SocketAddr) -> Client {
        Client::over(TcpStream::connect(to).unwrap_or_else(|error| panic!("connecting to {to}: {error}")))
    }

    /// Connects from one of this host's addresses.
    pub(crate) fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Client {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        bind(&socket, &SocketAddr::from((from, 0))).expect("an address of this host");
        connect(&socket, &to).unwrap_or_else(|error| panic!("connecting from {from} to {to}: {error}"));
        Client::over(socket.into())
    }

    fn over(socket: TcpStream) -> Client {
        // A missing response fails the test instead of hanging it.
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Client(socket)
    }

    /// Connects and sends all of `bytes` at once.
    pub(crate) fn sending(to: SocketAddr, bytes: &[u8]) -> Client {
        let client = Client::connect(to);
        client.send(bytes);
        client
    }

    /// Sends all of it at once; false if the daemon has closed.
    pub(crate) fn send(&self, bytes: &[u8]) -> bool {
        match send(&self.0, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent == bytes.len(),
            Err(Errno::PIPE | Errno::CONNRESET) => false,
            Err(error) => panic!("sending {} bytes: {error}", bytes.len()),
        }
    }

    /// Shuts down the sending side.
    pub(crate) fn half_close(&self) {
        // It fails if the daemon has already closed, which does not matter.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Makes dropping the connection send a RST.
    pub(crate) fn reset_at_end(&self) {
        set_socket_linger(&self.0, Some(Duration::ZERO)).expect("a socket");
    }

    /// Reads this many bytes, or fewer if the connection ends, even by a RST.
    pub(crate) fn read(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (&self.0).take(u64::try_from(count).expect("64 bits")).read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("after {} bytes and no end: {error}", bytes.len()),
        }
    }

    /// Reads this many bytes one by one; fewer if the connection ends.
    pub(crate) fn read_singly(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        let mut byte = [0];
        while bytes.len() < count && recv(&self.0, &mut byte, RecvFlags::empty()) == Ok((1, 1)) {
            bytes.extend(byte);
        }
        bytes
    }

    /// Reads up to the end of the connection.
    pub(crate) fn answer(&self) -> Vec<u8> {
        self.read(usize::MAX)
    }

    /// The answer to an ALIVE2_REQ of a node that speaks version 6.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.read(6).as_slice() {
            [] => Verdict::Closed,
            [118, 0, creation @ ..] if creation.len() == 4 => {
                Verdict::Accepted(u32::from_be_bytes(creation.try_into().expect("four bytes")))
            }
            [118, 1, 0, 0, 0, 99] => Verdict::Refused,
            other => panic!("no answer to ALIVE2_REQ: {}", other.escape_ascii()),
        }
    }

    /// Whether the connection is open and there is nothing to read.
    pub(crate) fn is_open(&self) -> bool {
        let mut byte = [0];
        recv(&self.0, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK) == Err(Errno::AGAIN)
    }

    /// Waits up to `pause` for a byte or the end; returns whether neither has come.
    pub(crate) fn stays_silent_for(&self, pause: Duration) -> bool {
        self.0.set_read_timeout(Some(pause)).expect("a time limit");
        let mut byte = [0];
        let silent = recv(&self.0, &mut byte, RecvFlags::PEEK) == Err(Errno::AGAIN);
        self.0.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        silent
    }
}

/// Sends one request on a new connection and returns the whole response.
pub(crate) fn ask(to: SocketAddr, request: &[u8]) -> Vec<u8> {
    Client::sending(to, request).answer()
}
