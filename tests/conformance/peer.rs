//! One connection to the server under test, and notes about it.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use rustix::net::{bind, connect, getsockname, recv, send, shutdown, socket_with};

use crate::harness::{PATIENCE, wait_until};
use crate::sockets;

/// The lines a case has noted so far.
pub(crate) type Notes = Rc<RefCell<Vec<String>>>;

/// The client end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) who: String,
    socket: OwnedFd,
    server: SocketAddr,
    notes: Notes,
}

/// How a connection ends for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Eof,
    Reset,
    /// It has not ended.
    None,
}

impl End {
    fn words(self) -> &'static str {
        match self {
            End::Eof => "eof",
            End::Reset => "reset",
            End::None => "open",
        }
    }
}

impl Peer {
    /// Connects, from a given address if there is one.
    pub(crate) fn connect(who: &str, from: Option<IpAddr>, to: SocketAddr, notes: &Notes) -> Peer {
        Peer::try_connect(who, from, to, notes)
            .unwrap_or_else(|error| panic!("{who} connecting to {to}: {error}"))
    }

    /// Like `connect`, but returns an error if the connection is refused.
    pub(crate) fn try_connect(
        who: &str,
        from: Option<IpAddr>,
        to: SocketAddr,
        notes: &Notes,
    ) -> Result<Peer, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        if let Some(from) = from {
            bind(&socket, &SocketAddr::new(from, 0)).expect("an address of this host");
        }
        connect(&socket, &to)?;
        Ok(Peer::over(who, socket, to, notes))
    }

    /// A peer on a socket that is connected already.
    pub(crate) fn over(who: &str, socket: OwnedFd, server: SocketAddr, notes: &Notes) -> Peer {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).expect("a time limit");
        Peer { who: who.to_owned(), socket, server, notes: Rc::clone(notes) }
    }

    /// Sends everything at once: on loopback that is one segment, and one read if the server's buffer is large enough.
    pub(crate) fn send(&self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "{} cannot send any more", self.who);
    }

    /// Sends, unless the server has closed.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> bool {
        match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent == bytes.len(),
            Err(Errno::PIPE | Errno::CONNRESET) => false,
            Err(error) => panic!("{} sending: {error}", self.who),
        }
    }

    /// Sends, and waits until the program has read it, so that later bytes arrive in a separate read.
    pub(crate) fn send_apart(&self, bytes: &[u8]) {
        self.send(bytes);
        self.wait_until_read();
    }

    /// Waits until the program has read what was sent.
    pub(crate) fn wait_until_read(&self) {
        let (ours, server) = self.ends();
        wait_until(&format!("the server to read from {}", self.who), || sockets::has_read_all(server, ours));
    }

    /// Waits until the server has closed its end, whether or not this side can tell.
    pub(crate) fn wait_until_dropped(&self) {
        wait_until_dropped(self.ends());
    }

    /// Notes the number of segments received so far.
    pub(crate) fn counts_segments(&self) {
        let (ours, server) = self.ends();
        match sockets::data_segments(ours, server) {
            Some(1) => self.note("in one segment"),
            other => self.note(&format!("in {other:?} segments")),
        }
    }

    /// The addresses of this end and of the server's.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        let ours = SocketAddr::try_from(getsockname(&self.socket).expect("a local address"));
        (ours.expect("an internet address"), self.server)
    }

    /// Notes everything the server sends, including how the connection ends.
    pub(crate) fn reads_to_end(&self) {
        let (bytes, end) = self.receive(usize::MAX);
        self.note(&outcome(&bytes, end.words()));
    }

    /// Everything the server sends up to the end of the connection, without a note.
    pub(crate) fn all(&self) -> Vec<u8> {
        self.receive(usize::MAX).0
    }

    /// The result of one read, as soon as there is data.
    pub(crate) fn first_piece(&self) -> Vec<u8> {
        let mut buffer = [0; 16 * 1024];
        let count = recv(&self.socket, &mut buffer, RecvFlags::empty()).map_or(0, |(_, count)| count);
        buffer[..count].to_vec()
    }

    /// This many bytes from the server, or as many as arrived, without a note.
    pub(crate) fn all_of(&self, count: usize) -> Vec<u8> {
        self.receive(count).0
    }

    /// Reads the response to an ALIVE2_REQ, notes it without the creation, and returns the creation.
    pub(crate) fn reads_alive2_reply(&self) -> u32 {
        let (creation, text) = self.alive2_reply();
        self.note(&text);
        creation
    }

    /// The same without a note, for set-up steps: panics unless the registration succeeded.
    pub(crate) fn is_registered(&self) -> u32 {
        let (creation, text) = self.alive2_reply();
        assert!(text.ends_with("<creation>"), "{}: {text}", self.who);
        creation
    }

    fn alive2_reply(&self) -> (u32, String) {
        let (mut bytes, mut end) = self.receive(4);
        if bytes.len() == 4 && bytes[0] == b'v' {
            let (rest, ended) = self.receive(2);
            bytes.extend(rest);
            end = ended;
        }
        let creation = bytes.iter().skip(2).fold(0, |number, &byte| number << 8 | u32::from(byte));
        let text = match bytes.as_slice() {
            [kind, 0, _, _] | [kind, 0, _, _, _, _] => format!("{}<creation>", printable(&[*kind, 0])),
            [b'y', _, _, _] | [b'v', _, _, _, _, _] => printable(&bytes),
            _ => outcome(&bytes, end.words()),
        };
        (creation, text)
    }

    /// Notes whether the connection is open and silent. Meaningful only after an event that proves that the server had
    /// the chance to close it.
    pub(crate) fn is_open(&self) {
        let mut buffer = [0; 1];
        let text = match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Err(Errno::AGAIN) => "open".to_owned(),
            Err(Errno::CONNRESET) => "reset".to_owned(),
            Ok((_, 0)) => "eof".to_owned(),
            Ok(_) => "open, with unexpected bytes".to_owned(),
            Err(error) => error.to_string(),
        };
        self.note(&text);
    }

    /// Whether there is data or an end of stream to read.
    pub(crate) fn has_news(&self) -> bool {
        let mut buffer = [0; 1];
        !matches!(recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK), Err(Errno::AGAIN))
    }

    /// Shuts down the sending side.
    pub(crate) fn half_close(&self) {
        shutdown(&self.socket, Shutdown::Write).expect("an open connection");
    }

    /// Closes the connection with a RST.
    pub(crate) fn reset(self) {
        set_socket_linger(&self.socket, Some(Duration::ZERO)).expect("an open connection");
    }

    /// The connection as a `TcpStream`.
    pub(crate) fn into_stream(self) -> TcpStream {
        TcpStream::from(self.socket)
    }

    /// Notes something about this peer.
    pub(crate) fn note(&self, text: &str) {
        self.notes.borrow_mut().push(format!("{}: {text}", self.who));
    }

    fn receive(&self, limit: usize) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while bytes.len() < limit {
            let room = buffer.len().min(limit - bytes.len());
            match recv(&self.socket, &mut buffer[..room], RecvFlags::empty()) {
                Ok((_, 0)) => return (bytes, End::Eof),
                Ok((_, count)) => bytes.extend(&buffer[..count]),
                Err(Errno::CONNRESET) => return (bytes, End::Reset),
                Err(Errno::INTR) => {}
                Err(_) => return (bytes, End::None),
            }
        }
        (bytes, End::None)
    }
}

/// Waits until the server has closed a connection whose client may be gone: (client's address, server's address).
pub(crate) fn wait_until_dropped((ours, server): (SocketAddr, SocketAddr)) {
    wait_until(&format!("the server to close its end of {ours}"), || !sockets::server_holds(server, ours));
}

/// Formats bytes for notes: text as text, the rest escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn outcome(bytes: &[u8], end: &str) -> String {
    if bytes.is_empty() { end.to_owned() } else { format!("{} {end}", printable(bytes)) }
}
