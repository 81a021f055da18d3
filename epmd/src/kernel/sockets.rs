//! The kernel's tables of sockets, `/proc/net/tcp`, `udp` and their IPv6 forms, and faster queries for single sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sock_diag;
pub use super::socket::Socket;

/// The tables of this thread's network namespace. `/proc/net` would show that of the process.
const TCP: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
const UDP: [&str; 2] = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
/// TCP_LISTEN.
const LISTEN: &str = "0A";
/// TCP_CLOSE, which is also the state of a UDP socket that is not connected.
const CLOSE: &str = "07";

/// The TCP sockets for which `wanted` returns true.
///
/// # Errors
///
/// If the tables cannot be read. A missing IPv6 table is not an error, because the system may not support IPv6.
pub fn find(wanted: impl Fn(&Socket) -> bool) -> io::Result<Vec<Socket>> {
    find_in(TCP, LISTEN, wanted)
}

fn find_in(tables: [&str; 2], listens: &str, wanted: impl Fn(&Socket) -> bool) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for table in tables {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                let sockets = text.lines().filter_map(|line| parse_line(line, listens));
                found.extend(sockets.filter(|socket| wanted(socket)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && table != tables[0] => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The socket at `local` that is connected to `remote`.
///
/// # Errors
///
/// If neither netlink nor the tables can be read.
pub fn connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Socket>> {
    sock_diag::connection(local, remote).or_else(|_| {
        // An IPv4 client of a dual-stack socket is listed among the IPv4 ones, the socket itself among the IPv6
        // ones.
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let ends = |local, remote| (canonical(local), canonical(remote));
        let look = || find(|socket| ends(socket.local, socket.remote) == ends(local, remote));
        let mut found = look()?;
        if found.is_empty() {
            // The tables change while they are read. A socket that moves can be missed, but hardly twice.
            found = look()?;
        }
        Ok(found.pop())
    })
}

/// The user who created the socket at `local` that is connected to `remote`; `None` if the kernel does not show it, or if
/// no process has it open any more: then the kernel names root, whoever it was. Costs one lookup in the kernel, and does
/// not fall back to the tables, which can take seconds to read.
#[must_use]
pub fn user_of(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let socket = sock_diag::connection(local, remote).ok()??;
    (socket.inode != 0).then_some(socket.uid)
}

/// The TCP sockets that listen on `port`.
///
/// # Errors
///
/// If neither netlink nor the tables can be read.
pub fn listeners(port: u16) -> io::Result<Vec<Socket>> {
    sock_diag::listeners(port).or_else(|_| find(|socket| socket.listens && socket.local.port() == port))
}

/// The UDP sockets that receive from anybody on `port`.
///
/// # Errors
///
/// If neither netlink nor the tables can be read.
pub fn receivers(port: u16) -> io::Result<Vec<Socket>> {
    sock_diag::receivers(port).or_else(|_| receivers_in_tables(port))
}

pub(super) fn receivers_in_tables(port: u16) -> io::Result<Vec<Socket>> {
    find_in(UDP, CLOSE, |socket| socket.listens && socket.local.port() == port)
}

/// `listening` is the state of a socket that listens.
fn parse_line(line: &str, listening: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse_end(fields.next()?)?;
    let remote = parse_end(fields.next()?)?;
    let listens = fields.next()? == listening;
    // The queues, the timer and the retransmissions are in between.
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Socket { local, remote, listens, uid, inode })
}

fn parse_end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The address is printed as 32-bit words in the byte order of the machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes);
    if text.len() == 8 {
        return word(text).map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let mut bytes = [0; 16];
    for (index, place) in bytes.chunks_exact_mut(4).enumerate() {
        place.copy_from_slice(&word(text.get(8 * index..8 * index + 8)?)?);
    }
    (text.len() == 32).then(|| Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_connection_is_known_until_it_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (server, peer) = listener.accept().expect("a connection");
        let own = server.local_addr().expect("bound");
        assert_eq!(user_of(peer, own), Some(rustix::process::geteuid().as_raw()));
        drop(client);
        // The kernel keeps the closed end, and says that it is root's.
        assert_eq!(user_of(peer, own), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_the_table_is_understood() {
        let line = "   1: 0100007F:1111 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105  \
                    0 4242 1 0000000000000000 100 0 0 10 0";
        let socket = parse_line(line, LISTEN).expect("a valid line");
        assert_eq!(socket.local, ([127, 0, 0, 1], 4369).into());
        assert_eq!((socket.listens, socket.uid, socket.inode), (true, 105, 4242));
        let line = line.replace("0100007F", "00000000000000000000000001000000").replace(" 0A ", " 01 ");
        let socket = parse_line(&line, LISTEN).expect("a valid line");
        assert_eq!((socket.local, socket.listens), ((Ipv6Addr::LOCALHOST, 4369).into(), false));
        assert_eq!(parse_line("  sl  local_address rem_address   st", LISTEN), None);
        assert_eq!(parse_line("", LISTEN), None);
        assert_eq!(parse_line(&line.replace(":1111", ":11111"), LISTEN), None);
    }
}
