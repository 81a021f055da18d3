//! Where the program behind a registered port listens, according to the kernel.
//!
//! A registration only claims a port. An exit that tried the addresses of this host one after another would also reach
//! programs that nobody registered, such as a console on loopback, and the daemon's own sockets. So it asks the kernel
//! who listens, and connects only to an address where the user who registered the name listens.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pmd_epmd::kernel::processes;
use pmd_epmd::kernel::sockets::{self, Socket};

/// The user id of root, who may register the ports of all users.
const ROOT: u32 = 0;

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum NoListener {
    /// Nothing listens on the port.
    #[error("nothing listens on port {0}")]
    Nobody(u16),
    /// The port belongs to this daemon.
    #[error("port {0} belongs to pmd itself")]
    Own(u16),
    /// Another user than the one who registered the name listens on the port.
    #[error("port {port} belongs to user {listener}, and user {owner} registered the name")]
    Foreign {
        /// The port.
        port: u16,
        /// The user who listens.
        listener: u32,
        /// The user who registered the name.
        owner: u32,
    },
    /// The kernel cannot be asked.
    #[error("the kernel does not say who listens on port {port}: {source}")]
    Unknown {
        /// The port.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
}

/// The addresses at which the program that `owner` registered with `port` can be reached, best first. If the owner is
/// not known, any user's program is accepted. `own_ports` are the ports of this daemon on all addresses.
///
/// This blocks for as long as it takes to list this process's descriptors.
///
/// # Errors
///
/// If there is no such address.
pub fn find(port: u16, owner: Option<u32>, own_ports: &BTreeSet<u16>) -> Result<Vec<SocketAddr>, NoListener> {
    if own_ports.contains(&port) {
        return Err(NoListener::Own(port));
    }
    let unknown = |source| NoListener::Unknown { port, source };
    let listeners = sockets::listeners(port).map_err(unknown)?;
    let own_user = rustix::process::geteuid().as_raw();
    let mut own = BTreeSet::new();
    // Listing the descriptors costs more than everything else, and only sockets of this user can be this daemon's.
    for socket in listeners.iter().filter(|socket| socket.uid == own_user) {
        if processes::holds_itself(&BTreeSet::from([socket.inode])).map_err(unknown)? {
            own.insert(socket.inode);
        }
    }
    choose(port, &listeners, |socket| {
        if own.contains(&socket.inode) {
            return Err(NoListener::Own(port));
        }
        match owner {
            Some(owner) if owner != socket.uid && owner != ROOT => {
                Err(NoListener::Foreign { port, listener: socket.uid, owner })
            }
            _ => Ok(()),
        }
    })
}

/// The addresses whose connections can reach no other sockets than those that `check` accepts.
fn choose(
    port: u16,
    listeners: &[Socket],
    check: impl Fn(&Socket) -> Result<(), NoListener>,
) -> Result<Vec<SocketAddr>, NoListener> {
    let mut candidates: Vec<IpAddr> = Vec::new();
    let mut add = |ip: IpAddr| {
        if !candidates.contains(&ip) {
            candidates.push(ip);
        }
    };
    for socket in listeners {
        match socket.local.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => add(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => {
                add(Ipv6Addr::LOCALHOST.into());
                // A system without IPv6 on its loopback interface; usually such a socket accepts IPv4, too.
                add(Ipv4Addr::LOCALHOST.into());
            }
            ip => add(ip),
        }
    }
    let mut refused = None;
    let mut chosen = Vec::new();
    for ip in candidates {
        match listeners.iter().filter(|socket| could_receive(socket, ip)).try_for_each(&check) {
            Ok(()) => chosen.push(SocketAddr::new(ip, port)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    if chosen.is_empty() { Err(refused.unwrap_or(NoListener::Nobody(port))) } else { Ok(chosen) }
}

/// Whether a connection to `ip` can reach this socket. The kernel does not show whether a socket on all IPv6 addresses
/// accepts IPv4 as well, so it counts for both.
fn could_receive(socket: &Socket, ip: IpAddr) -> bool {
    match socket.local.ip().to_canonical() {
        IpAddr::V6(own) if own.is_unspecified() => true,
        IpAddr::V4(own) if own.is_unspecified() => ip.is_ipv4(),
        own => own == ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PORT: u16 = 9_000;
    const USER: u32 = 1_000;

    fn socket(ip: &str, uid: u32) -> Socket {
        Socket {
            local: SocketAddr::new(ip.parse().expect("an address"), PORT),
            remote: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            listens: true,
            uid,
            inode: 7,
        }
    }

    /// The addresses for what `USER` has registered.
    fn chosen(listeners: &[(&str, u32)]) -> Vec<String> {
        let listeners: Vec<Socket> = listeners.iter().map(|(ip, uid)| socket(ip, *uid)).collect();
        let check = |socket: &Socket| match socket.uid {
            USER => Ok(()),
            listener => Err(NoListener::Foreign { port: PORT, listener, owner: USER }),
        };
        match choose(PORT, &listeners, check) {
            Ok(addresses) => addresses.iter().map(|address| address.ip().to_string()).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn a_program_is_reached_where_it_listens_and_nowhere_else() {
        for (listens_on, reached) in [
            ("0.0.0.0", vec!["127.0.0.1"]),
            ("::", vec!["::1", "127.0.0.1"]),
            ("10.1.2.3", vec!["10.1.2.3"]),
            ("::ffff:10.1.2.3", vec!["10.1.2.3"]),
            ("::1", vec!["::1"]),
            ("fd00::3", vec!["fd00::3"]),
            ("127.0.0.1", vec!["127.0.0.1"]),
        ] {
            assert_eq!(chosen(&[(listens_on, USER)]), reached, "{listens_on}");
        }
        assert_eq!(chosen(&[]), ["nothing listens on port 9000"]);
    }

    #[test]
    fn the_port_of_another_user_is_never_reached() {
        let refused = ["port 9000 belongs to user 0, and user 1000 registered the name"];
        for foreign in ["127.0.0.1", "::1", "0.0.0.0", "::", "10.1.2.3"] {
            assert_eq!(chosen(&[(foreign, 0)]), refused, "{foreign}");
        }
        // A console on loopback beside a node on one address, or on the other address family.
        assert_eq!(chosen(&[("127.0.0.1", 0), ("10.1.2.3", USER)]), ["10.1.2.3"]);
        assert_eq!(chosen(&[("127.0.0.1", 0), ("::", USER)]), ["::1"]);
        assert_eq!(chosen(&[("::1", 0), ("0.0.0.0", USER)]), ["127.0.0.1"]);
        // A socket on all IPv6 addresses may receive connections to IPv4 addresses.
        assert_eq!(chosen(&[("::", 0), ("127.0.0.1", USER)]), refused);
    }

    #[test]
    fn sockets_of_this_process_are_never_reached() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let found = find(port, None, &BTreeSet::new());
            assert!(matches!(found, Err(NoListener::Own(_))), "{address}: {found:?}");
            drop(listener);
            let found = find(port, None, &BTreeSet::new());
            assert!(matches!(found, Err(NoListener::Nobody(_))), "{address}: {found:?}");
        }
        let found = find(PORT, None, &BTreeSet::from([PORT]));
        assert!(matches!(found, Err(NoListener::Own(PORT))), "{found:?}");
    }
}
