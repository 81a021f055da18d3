//! Asks the kernel who listens at an address that this daemon could not bind.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use pmd_epmd::kernel::processes;
use pmd_epmd::kernel::sockets::{self, Socket};

/// The owner of an alias port that this daemon could not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// This daemon, with a socket on all addresses.
    Covered,
    /// This daemon, with a socket on this address.
    Own,
    /// A program of this user.
    By(u32),
    /// Nobody any more.
    Free,
}

/// Whether this daemon already listens at this address, by a socket on all addresses.
pub(super) fn is_covered(address: SocketAddr) -> bool {
    matches!(owner(address), Ok(Owner::Covered | Owner::Own))
}

/// Asks the kernel which socket owns the port of an alias.
pub(super) fn owner(address: SocketAddr) -> io::Result<Owner> {
    let listeners = sockets::listeners(address.port())?;
    let is_own = |socket: &Socket| processes::holds_itself(&BTreeSet::from([socket.inode]));
    owner_among(address.ip(), &listeners, is_own)
}

fn owner_among(
    alias: IpAddr,
    listeners: &[Socket],
    is_own: impl Fn(&Socket) -> io::Result<bool>,
) -> io::Result<Owner> {
    let all = |socket: &&Socket| socket.local.ip().to_canonical().is_unspecified();
    let exact = |socket: &&Socket| socket.local.ip().to_canonical() == alias;
    let exact = listeners.iter().find(exact);
    let Some(found) = exact.or_else(|| listeners.iter().find(all)) else { return Ok(Owner::Free) };
    Ok(match (is_own(found)?, exact.is_some()) {
        (true, true) => Owner::Own,
        (true, false) => Owner::Covered,
        (false, _) => Owner::By(found.uid),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const USER: u32 = 1_000;

    fn who(sockets: &[(&str, bool)]) -> Owner {
        let alias: IpAddr = "127.77.1.2".parse().expect("an address");
        let sockets: Vec<Socket> = (1..)
            .zip(sockets)
            .map(|(inode, (ip, own))| Socket {
                local: SocketAddr::new(ip.parse().expect("an address"), 4369),
                remote: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
                listens: true,
                uid: if *own { 0 } else { USER },
                inode,
            })
            .collect();
        owner_among(alias, &sockets, |socket| Ok(socket.uid == 0)).expect("the kernel answers")
    }

    #[test]
    fn only_a_socket_of_this_daemon_on_all_addresses_covers_the_aliases() {
        assert_eq!(who(&[("0.0.0.0", true)]), Owner::Covered);
        assert_eq!(who(&[("::", true)]), Owner::Covered);
        assert_eq!(who(&[("127.77.1.2", true)]), Owner::Own);
        assert_eq!(who(&[("10.1.2.3", true), ("127.77.1.2", false)]), Owner::By(USER));
        assert_eq!(who(&[("0.0.0.0", true), ("127.77.1.2", false)]), Owner::By(USER));
        assert_eq!(who(&[("0.0.0.0", false)]), Owner::By(USER));
        assert_eq!(who(&[("10.1.2.3", true), ("127.77.9.9", false)]), Owner::Free);
    }
}
