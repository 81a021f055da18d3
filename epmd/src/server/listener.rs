//! The listening sockets: their addresses, their order and the handling of failures.
//!
//! Stock epmd's rules: without a list, all IPv4 and all IPv6 addresses; with one, always the two loopback addresses and
//! then the listed ones. An address that is in use means that a port mapper is already running. Unlike stock, a
//! wildcard in the list is bound once instead of colliding with the implied loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, getsockname, listen, shutdown, socket_with,
    sockopt,
};

/// How long the kernel holds back a connection that has sent nothing yet. Most clients send their request with the last
/// packet of the handshake, so the accepting thread can read it at once and is woken once instead of twice.
const DEFER_ACCEPT: Duration = Duration::from_secs(1);

sockopt_impl!(
    /// TCP_DEFER_ACCEPT, tcp(7): seconds until a silent connection is handed over anyway.
    DeferAccept,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Option<SocketAddr>,
    /// Whether it belongs to a supervisor, which keeps listening.
    inherited: bool,
    closed: AtomicBool,
}

/// The reason why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process is listening there, most likely a port mapper.
    #[error("{0} is in use")]
    InUse(SocketAddr),
    /// The system rejected the address.
    #[error("cannot listen on {address}: {source}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: Errno,
    },
    /// No address family works.
    #[error("cannot listen on any of the addresses")]
    Nothing,
}

impl Listener {
    /// Takes over a listening socket from a supervisor; any address family is accepted.
    pub fn inherited(socket: OwnedFd) -> Result<Listener, Errno> {
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(Errno::INVAL);
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        let address = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
        Ok(Listener { socket, address, inherited: true, closed: AtomicBool::new(false) })
    }

    /// Stops listening, for all threads that share the socket: the address is free from now on, and new connections are
    /// refused. A socket from a supervisor is not affected.
    pub fn close(&self) {
        if self.inherited {
            return;
        }
        self.closed.store(true, Ordering::Relaxed);
        // If this fails, the socket listens until the process exits.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The address it listens on, if it is an IP address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    address: IpAddr,
    /// It was added, not requested, so a failure is not fatal.
    implied: bool,
}

/// Listens on `port` of the addresses that `listed` implies, see the module documentation for the rules.
pub fn bind_all(listed: &[IpAddr], port: u16) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for wanted in wanted(listed) {
        let address = SocketAddr::new(wanted.address, port);
        match bind_one(address) {
            Ok(listener) => listeners.push(listener),
            Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => {
                tracing::debug!("{address}: the system does not support this address family");
            }
            Err(Errno::ADDRINUSE) => return Err(ListenError::InUse(address)),
            Err(error) if wanted.implied => tracing::warn!("cannot listen on {address}: {error}"),
            Err(source) => return Err(ListenError::Failed { address, source }),
        }
    }
    if listeners.is_empty() { Err(ListenError::Nothing) } else { Ok(listeners) }
}

/// Whether sockets at `there` are those that [`bind_all`] would create for `listed`, apart from the loopback addresses
/// that it adds.
pub fn is_as_listed(listed: &[IpAddr], there: &[SocketAddr]) -> bool {
    let there: Vec<IpAddr> = there.iter().map(SocketAddr::ip).collect();
    let wanted: Vec<IpAddr> = wanted(listed).into_iter().map(|wanted| wanted.address).collect();
    there.iter().all(|ip| wanted.contains(ip))
        && wanted.iter().all(|ip| there.contains(ip) || !listed.contains(ip) && !listed.is_empty())
}

fn wanted(listed: &[IpAddr]) -> Vec<Wanted> {
    let wildcards = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    if listed.is_empty() {
        return wildcards.map(|address| Wanted { address, implied: false }).to_vec();
    }
    let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let all = loopbacks
        .into_iter()
        .map(|address| Wanted { address, implied: true })
        .chain(listed.iter().map(|&address| Wanted { address, implied: false }));
    let mut wanted: Vec<Wanted> = Vec::new();
    for next in all {
        // A wildcard covers all addresses of its family, so it is the only one of that family.
        let covered = listed.iter().any(|other| {
            wildcards.contains(other) && other.is_ipv4() == next.address.is_ipv4() && *other != next.address
        });
        if !covered && !wanted.iter().any(|earlier| earlier.address == next.address) {
            wanted.push(next);
        }
    }
    wanted
}

fn bind_one(address: SocketAddr) -> Result<Listener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    if has_syn_cookies() {
        // The server works without this option, but needs one more wake-up for each lookup.
        let seconds = u32::try_from(DEFER_ACCEPT.as_secs()).unwrap_or(1);
        let _ = nix::sys::socket::setsockopt(&socket, DeferAccept, &seconds);
    }
    // The kernel limits this to net.core.somaxconn.
    listen(&socket, i32::MAX)?;
    let address = getsockname(&socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
    Ok(Listener { socket, address, inherited: false, closed: AtomicBool::new(false) })
}

/// Whether connections get through while thousands of silent ones are pending. The kernel keeps deferred connections in
/// a bounded queue, and without SYN cookies, a full queue blocks all others.
fn has_syn_cookies() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn addresses(listed: &[&str]) -> Vec<(String, bool)> {
        let listed: Vec<IpAddr> = listed.iter().map(|text| text.parse().expect("an address")).collect();
        wanted(&listed).iter().map(|wanted| (wanted.address.to_string(), wanted.implied)).collect()
    }

    fn expect(rows: &[(&str, bool)]) -> Vec<(String, bool)> {
        rows.iter().map(|(address, implied)| ((*address).to_owned(), *implied)).collect()
    }

    #[test]
    fn no_list_means_everything() {
        assert_eq!(addresses(&[]), expect(&[("0.0.0.0", false), ("::", false)]));
    }

    #[test]
    fn a_list_implies_the_loopbacks() {
        assert_eq!(
            addresses(&["10.0.0.1", "127.0.0.1", "10.0.0.1"]),
            expect(&[("127.0.0.1", true), ("::1", true), ("10.0.0.1", false)])
        );
    }

    #[test]
    fn a_wildcard_stands_for_its_family_and_is_taken_once() {
        assert_eq!(addresses(&["0.0.0.0"]), expect(&[("::1", true), ("0.0.0.0", false)]));
        assert_eq!(addresses(&["::", "fd00::1"]), expect(&[("127.0.0.1", true), ("::", false)]));
    }

    #[test]
    fn sockets_of_others_are_as_listed_or_not() {
        for (listed, there, are) in [
            (vec!["10.0.0.1"], vec!["10.0.0.1:1"], true),
            (vec!["10.0.0.1"], vec!["[::1]:1", "10.0.0.1:1", "127.0.0.1:1"], true),
            (vec!["10.0.0.1"], vec!["0.0.0.0:1", "[::]:1"], false),
            (vec!["10.0.0.1"], vec!["10.0.0.1:1", "10.0.0.2:1"], false),
            (vec!["10.0.0.1", "10.0.0.2"], vec!["10.0.0.1:1"], false),
            (vec!["10.0.0.1"], vec![], false),
            (vec!["0.0.0.0", "::"], vec!["0.0.0.0:1", "[::]:1"], true),
            (vec!["0.0.0.0"], vec!["0.0.0.0:1", "[::]:1"], false),
            (vec!["0.0.0.0", "10.0.0.1"], vec!["0.0.0.0:1"], true),
            (vec!["127.0.0.1"], vec!["127.0.0.1:1"], true),
            (vec![], vec!["0.0.0.0:1", "[::]:1"], true),
            (vec![], vec!["0.0.0.0:1"], false),
        ] {
            let ips: Vec<IpAddr> = listed.iter().map(|text| text.parse().expect("an address")).collect();
            let sockets: Vec<SocketAddr> =
                there.iter().map(|text| text.parse().expect("an address")).collect();
            assert_eq!(is_as_listed(&ips, &sockets), are, "{listed:?} {there:?}");
        }
    }

    #[test]
    fn a_second_listener_on_the_same_port_is_told_apart_from_other_failures() {
        let first = bind_all(&[Ipv4Addr::LOCALHOST.into()], 0).expect("a free port");
        let port = first[0].address().expect("an internet address").port();
        let second = bind_all(&[Ipv4Addr::LOCALHOST.into()], port);
        assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
    }

    #[test]
    fn a_closed_one_makes_room_for_another_and_one_of_a_supervisor_stays_open() {
        let first = bind_all(&[Ipv4Addr::LOCALHOST.into()], 0).expect("a free port");
        let address = first[0].address().expect("an internet address");
        first.iter().for_each(Listener::close);
        assert!(first[0].is_closed());
        let refused = TcpStream::connect(address).expect_err("nothing listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let successor = bind_all(&[Ipv4Addr::LOCALHOST.into()], address.port());
        assert!(successor.is_ok(), "{successor:?}");

        let theirs = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = theirs.local_addr().expect("an address");
        let inherited = Listener::inherited(theirs.into()).expect("it listens");
        inherited.close();
        assert!(!inherited.is_closed());
        TcpStream::connect(address).expect("the supervisor listens");
    }
}
