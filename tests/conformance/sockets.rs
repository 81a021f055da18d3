//! The kernel's view of the TCP sockets in the calling thread's network namespace, over `sock_diag` netlink: querying
//! one socket is one lookup, whereas `/proc/net/tcp` walks the tables of the whole machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;
/// Requests `struct tcp_info`, which is returned as an attribute of type [`INFO`].
const WITH_INFO: u8 = 1 << (INFO - 1);
const INFO: u16 = 2;
/// The offset of `tcpi_data_segs_in` in `struct tcp_info`.
const DATA_SEGMENTS_IN: usize = 152;

/// The kernel's information about one socket.
#[derive(Clone, Copy, Debug)]
struct Socket {
    state: u8,
    local: SocketAddr,
    /// Bytes received but not yet read by the program.
    unread: u32,
    /// Bytes written but not yet acknowledged by the peer's kernel.
    unsent: u32,
    data_segments_in: Option<u32>,
}

/// The listening addresses at `port`, each once even if several sockets share it.
pub(crate) fn listeners(port: u16) -> BTreeSet<IpAddr> {
    all_listeners().iter().filter(|listener| listener.port() == port).map(SocketAddr::ip).collect()
}

/// Every listening socket's address and port.
pub(crate) fn all_listeners() -> BTreeSet<SocketAddr> {
    let unspecified = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    [AddressFamily::INET, AddressFamily::INET6]
        .iter()
        .flat_map(|family| ask(NLM_F_DUMP, *family, 1 << LISTEN, unspecified, unspecified))
        .map(|socket| socket.local)
        .collect()
}

/// Whether every byte that the socket at `ours` sent has been read by the program at `server`.
pub(crate) fn has_read_all(server: SocketAddr, ours: SocketAddr) -> bool {
    // Acknowledged bytes are in the server's queue; if that is empty, they have been read.
    connection(ours, server).is_none_or(|socket| socket.unsent == 0)
        && connection(server, ours).is_none_or(|socket| socket.unread == 0)
}

/// Whether a program still holds the `server` end of a connection.
pub(crate) fn server_holds(server: SocketAddr, ours: SocketAddr) -> bool {
    connection(server, ours).is_some()
}

/// Whether bytes or the end of stream have reached the server's end of a connection but not its program.
pub(crate) fn has_news_for_server(server: SocketAddr, ours: SocketAddr) -> bool {
    connection(server, ours).is_none_or(|socket| socket.unread > 0 || socket.state != ESTABLISHED)
}

/// The number of data segments received at our end of a connection.
pub(crate) fn data_segments(ours: SocketAddr, server: SocketAddr) -> Option<u32> {
    connection(ours, server)?.data_segments_in
}

fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Socket> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // If there is no such connection, the kernel's lookup falls back to the listener.
    ask(0, family, u32::MAX, local, remote)
        .into_iter()
        .find(|socket| socket.state != LISTEN && socket.state != TIME_WAIT)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`; the answers are `struct inet_diag_msg`.
fn ask(flags: u16, family: AddressFamily, states: u32, local: SocketAddr, remote: SocketAddr) -> Vec<Socket> {
    let family = u8::try_from(family.as_raw()).expect("a small number");
    let mut request = Vec::new();
    request.extend(72_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, TCP, WITH_INFO, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(words(local.ip()));
    request.extend(words(remote.ip()));
    request.extend([0; 4]);
    request.extend([0xFF; 8]);

    let netlink = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .expect("a netlink socket for sock_diag");
    send(&netlink, &request, SendFlags::empty()).expect("asking the kernel for its sockets");
    let mut found = Vec::new();
    let mut buffer = [0; 32 * 1024];
    loop {
        let (_, count) = recv(&netlink, &mut buffer, RecvFlags::empty()).expect("an answer from the kernel");
        let mut rest = &buffer[..count];
        while let Some((kind, message)) = next_message(&mut rest) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return found,
                _ => found.extend(parse(message)),
            }
        }
        if flags == 0 {
            return found;
        }
    }
}

fn words(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&ip.octets());
            words
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The next message's type and body.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let bytes = *rest;
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(16..length)?;
    *rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

fn parse(message: &[u8]) -> Option<Socket> {
    let port = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let ip = match i32::from(*message.first()?) {
        family if family == i32::from(AddressFamily::INET.as_raw()) => {
            IpAddr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?)
        }
        _ => IpAddr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?),
    };
    let mut attributes = message.get(72..)?;
    let mut data_segments_in = None;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        if kind == INFO {
            data_segments_in = u32_at(attributes.get(4..length)?, DATA_SEGMENTS_IN);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Socket {
        state: *message.get(1)?,
        local: SocketAddr::new(ip, port),
        unread: u32_at(message, 56)?,
        unsent: u32_at(message, 60)?,
        data_segments_in,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
