//! Queries for single sockets over netlink, sock_diag(7).
//!
//! A query costs one lookup in the kernel. Reading the text tables of `/proc/net` walks every socket of the machine,
//! which takes seconds where there are 100,000.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::socket::Socket;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// TCP_LISTEN.
const LISTEN: u8 = 10;
/// TCP_CLOSE, which is also the state of a UDP socket that is not connected.
const CLOSE: u8 = 7;
/// ENOENT as encoded in an error message: no such socket.
const NO_SUCH_SOCKET: i32 = -2;
/// The size of `struct nlmsghdr`, and of a request with `struct inet_diag_req_v2`.
const HEADER: usize = 16;
const REQUEST: u32 = 72;
/// A buffer size that exceeds the kernel's largest datagram.
const DATAGRAM: usize = 32 * 1024;

/// The socket at `local` that is connected to `remote`.
///
/// # Errors
///
/// If the kernel cannot be queried; a sandbox may forbid it.
pub(super) fn connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Socket>> {
    // The kernel finds an IPv4 connection of a dual-stack socket by its IPv4 addresses, too.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let family = if canonical(local).is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let found = ask(0, family, IPPROTO_TCP, u32::MAX, canonical(local), canonical(remote))?;
    // If there is no connection, the kernel's lookup falls back to the listener.
    Ok(found.into_iter().find(|socket| !socket.listens))
}

/// The TCP sockets that listen on `port`.
///
/// # Errors
///
/// If the kernel cannot be queried.
pub(super) fn listeners(port: u16) -> io::Result<Vec<Socket>> {
    at_port(IPPROTO_TCP, LISTEN, port)
}

/// The UDP sockets that receive from anybody on `port`.
///
/// # Errors
///
/// If the kernel cannot be queried, or has no such interface for UDP: it is a module of its own.
pub(super) fn receivers(port: u16) -> io::Result<Vec<Socket>> {
    let mut found = at_port(IPPROTO_UDP, CLOSE, port)?;
    // UDP has no state of its own for this.
    found.iter_mut().for_each(|socket| socket.listens = true);
    Ok(found)
}

fn at_port(protocol: u8, state: u8, port: u16) -> io::Result<Vec<Socket>> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let own = SocketAddr::new(any.ip(), port);
    let mut found = ask(NLM_F_DUMP, AddressFamily::INET, protocol, 1 << state, own, any)?;
    found.extend(ask(NLM_F_DUMP, AddressFamily::INET6, protocol, 1 << state, own, any)?);
    found.retain(|socket| socket.local.port() == port);
    Ok(found)
}

fn ask(
    flags: u16,
    family: AddressFamily,
    protocol: u8,
    states: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Vec<Socket>> {
    let netlink = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&netlink, &request(flags, family, protocol, states, local, remote), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (length, _) = recv(&netlink, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, message)) = next_message(&mut rest) {
            match kind {
                NLMSG_DONE => return dump_ended(message).map(|()| found),
                NLMSG_ERROR => return no_such_socket(message).map(|()| found),
                _ => found.extend(parse(message)),
            }
        }
        if flags == 0 {
            return Ok(found);
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(
    flags: u16,
    family: AddressFamily,
    protocol: u8,
    states: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(REQUEST.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // The sequence number, and the sender's address, which the kernel fills in.
    request.extend([0; 8]);
    request.extend([u8::try_from(family.as_raw()).unwrap_or_default(), protocol, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(sixteen_bytes(local.ip()));
    request.extend(sixteen_bytes(remote.ip()));
    // Any interface, and no cookie, which would select one of several sockets with the same addresses.
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

fn sixteen_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The next message's type and body.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let bytes = *rest;
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    *rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

/// Returns `Ok` if the error message means that the socket does not exist.
fn no_such_socket(message: &[u8]) -> io::Result<()> {
    match u32_at(message, 0).map(u32::cast_signed) {
        Some(NO_SUCH_SOCKET) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Returns an error if the kernel ended a list because it does not have the module for its protocol.
fn dump_ended(message: &[u8]) -> io::Result<()> {
    match u32_at(message, 0).map(u32::cast_signed) {
        Some(error) if error < 0 => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Ok(()),
    }
}

/// `struct inet_diag_msg`.
fn parse(message: &[u8]) -> Option<Socket> {
    let [family, state, _, _] = *message.first_chunk()?;
    let port = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let ip = |at: usize| -> Option<IpAddr> {
        if u16::from(family) == AddressFamily::INET.as_raw() {
            Some(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?.into())
        } else {
            Some(<[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?.into())
        }
    };
    Some(Socket {
        local: SocketAddr::new(ip(8)?, port(4)?),
        remote: SocketAddr::new(ip(24)?, port(6)?),
        listens: state == LISTEN,
        uid: u32_at(message, 64)?,
        inode: u32_at(message, 68)?.into(),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn finds_what_the_tables_show() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
            let (local, remote) =
                (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
            let in_tables = |wanted: &dyn Fn(&Socket) -> bool| {
                super::super::sockets::find(wanted).expect("the tables").first().cloned()
            };
            let connected = connection(local, remote).expect("an answer");
            assert_eq!(connected, in_tables(&|socket| (socket.local, socket.remote) == (local, remote)));
            assert!(connected.is_some());
            let listening = listeners(remote.port()).expect("an answer");
            assert_eq!(
                listening.first(),
                in_tables(&|socket| socket.listens && socket.local == remote).as_ref()
            );
            assert_eq!(listening.len(), 1);
        }
    }

    #[test]
    fn a_list_that_the_kernel_cannot_make_is_an_error() {
        assert!(dump_ended(&0_u32.to_ne_bytes()).is_ok());
        let no_module = dump_ended(&NO_SUCH_SOCKET.cast_unsigned().to_ne_bytes());
        assert_eq!(no_module.expect_err("nothing was listed").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn receivers_are_what_the_tables_show() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).expect("a port");
            let own = socket.local_addr().expect("bound");
            let in_tables = super::super::sockets::receivers_in_tables(own.port()).expect("the tables");
            assert_eq!(in_tables.iter().map(|socket| socket.local).collect::<Vec<_>>(), [own]);
            // Where the kernel has no interface for UDP, the tables are what is used.
            if let Ok(found) = receivers(own.port()) {
                assert_eq!(found, in_tables);
            }
            socket.connect(own).expect("an address of this host");
            assert_eq!(super::super::sockets::receivers(own.port()).expect("a list"), []);
        }
    }

    #[test]
    fn no_connection_is_not_an_error_and_not_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("bound");
        assert_eq!(connection(own, ([127, 0, 0, 1], 1).into()).expect("an answer"), None);
        assert_eq!(connection(([127, 0, 0, 1], 1).into(), own).expect("an answer"), None);
    }

    #[test]
    fn an_ipv4_connection_of_a_dual_stack_socket_is_found() {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let Ok(client) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (server, _) = listener.accept().expect("a connection");
        let ends = (server.local_addr().expect("bound"), server.peer_addr().expect("connected"));
        assert!(ends.0.ip().to_canonical().is_ipv4());
        assert!(connection(ends.0, ends.1).expect("an answer").is_some_and(|socket| socket.inode != 0));
        assert!(connection(ends.1, ends.0).expect("an answer").is_some_and(|socket| socket.inode != 0));
        drop(client);
    }
}
