//! The load client: blocking sockets, one thread per concurrent client, the same for every server.
//!
//! Each thread connects, sends one request, reads to the end of the stream and starts over. The server closes first, so
//! each connection leaves a TIME_WAIT entry at the server, and reusing the client port of such an entry can take a
//! second. The clients of one slice therefore share a source address that other slices do not use for a long time.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::wire;

sockopt_impl!(BindAddressNoPort, Both, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, bool);

/// The timeout after which a server is considered dead.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The expected answer.
    Answered,
    /// A refused registration.
    Refused,
    /// The connection was closed or reset without an answer, as by a server without free descriptors.
    Dropped,
}

/// The request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// PORT_PLEASE2 for a random name out of this many.
    Lookup { names: u32 },
    /// PORT_PLEASE2 without a check of the answer.
    LookupUnchecked,
    /// NAMES on a server with this many names.
    Names { names: u32 },
    /// ALIVE2 with the client's own name, followed by a close.
    Churn,
}

/// "1 client", "16 clients".
pub(crate) fn with_clients(count: u32) -> String {
    format!("{count} client{}", if count == 1 { "" } else { "s" })
}

/// The next source address, from 127.1.0.1 to 127.1.0.250 in turn.
pub(crate) fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(127, 1, 0, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 250)
}

/// One concurrent client.
#[derive(Debug)]
pub(crate) struct Client {
    port: u16,
    source: Ipv4Addr,
    request: Request,
    own_name: String,
    random: u64,
    packet: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    /// The client number `index` of a slice.
    pub(crate) fn new(port: u16, source: Ipv4Addr, request: Request, index: u32) -> Client {
        let random = 0x9E37_79B9_7F4A_7C15 ^ (u64::from(index) + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
        let own_name = format!("churn{index:04}");
        Client { port, source, request, own_name, random, packet: Vec::new(), answer: vec![0; 65_536] }
    }

    /// Performs one request. Errors are failures that must not occur with any server.
    pub(crate) fn ask(&mut self) -> io::Result<Outcome> {
        let wanted = match self.request {
            Request::Lookup { names } => self.pick(names),
            _ => 0,
        };
        match self.request {
            Request::Names { .. } => {
                self.packet.clear();
                self.packet.extend_from_slice(&wire::NAMES);
            }
            Request::Churn => wire::register(&mut self.packet, &self.own_name, wire::FIRST_PORT),
            _ => wire::lookup(&mut self.packet, &wire::name(wanted)),
        }
        let mut stream = open(self.port, self.source)?;
        if let Err(error) = stream.write_all(&self.packet) {
            return dropped(error);
        }
        let limit = if self.request == Request::Churn { 6 } else { self.answer.len() };
        let length = match read_up_to(&mut stream, &mut self.answer[..limit]) {
            Ok(0) => return Ok(Outcome::Dropped),
            Ok(length) => length,
            Err(error) => return dropped(error),
        };
        self.check(wanted, &self.answer[..length])
    }

    fn check(&self, wanted: u32, answer: &[u8]) -> io::Result<Outcome> {
        let right = match self.request {
            Request::Lookup { .. } => {
                answer.starts_with(&[0x77, 0])
                    && answer.get(2..4) == Some(&wire::port(wanted).to_be_bytes()[..])
            }
            Request::LookupUnchecked => true,
            Request::Names { names } => answer.len() == wire::names_answer_len(names),
            Request::Churn if answer.len() == 6 && answer.starts_with(&[0x76, 1]) => {
                return Ok(Outcome::Refused);
            }
            Request::Churn => answer.len() == 6 && answer.starts_with(&[0x76, 0]),
        };
        if right {
            return Ok(Outcome::Answered);
        }
        let shown = &answer[..answer.len().min(40)];
        Err(io::Error::other(format!(
            "wrong answer to {:?} ({} bytes): {shown:02x?}",
            self.request,
            answer.len()
        )))
    }

    /// A xorshift64* generator, so that all servers get the same names.
    fn pick(&mut self, below: u32) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        u32::try_from((high * u64::from(below)) >> 32).unwrap_or(0)
    }
}

/// Connects to `port` on 127.0.0.1 from `source`. The kernel chooses the client port once the peer is known, so that
/// one port can be used for many peers.
pub(crate) fn open(port: u16, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    nix::sys::socket::setsockopt(&socket, BindAddressNoPort, &true)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Checks that the server answers with at least one byte.
pub(crate) fn probe(port: u16) -> io::Result<()> {
    let mut stream = open(port, Ipv4Addr::LOCALHOST)?;
    stream.write_all(&wire::NAMES)?;
    let mut byte = [0; 4];
    stream.read_exact(&mut byte[..1])
}

/// Reads until the buffer is full or the server closes.
fn read_up_to(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn dropped(error: io::Error) -> io::Result<Outcome> {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(Outcome::Dropped),
        io::ErrorKind::WouldBlock => Err(io::Error::other("no answer within ten seconds")),
        _ => Err(error),
    }
}
