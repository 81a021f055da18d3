//! Which peers count as local: only they may register, dump, kill or stop.
//!
//! Stock epmd's rule, decided from the two addresses of a connection: the peer is a loopback address, or both ends have
//! the same address. An IPv4 peer on a dual-stack socket (which systemd's socket units create) appears as an
//! IPv4-mapped IPv6 address; for these, only the second half of the rule applies.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::getsockname;

/// Whether a peer with the address `peer` counts as local on a connection to `own`.
pub fn is_local(peer: IpAddr, own: IpAddr) -> bool {
    peer.is_loopback() || peer == own
}

/// Whether the peer of an accepted socket counts as local. A peer without an IP address (on a Unix socket from a
/// supervisor) is never local.
pub fn socket_is_local(socket: impl AsFd, peer: Option<SocketAddr>) -> bool {
    let Some(peer) = peer else { return false };
    if peer.ip().is_loopback() {
        return true;
    }
    let own = getsockname(socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
    own.is_some_and(|own| is_local(peer.ip(), own.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_stock_epmd() {
        let rows = [
            ("127.0.0.5", "127.0.0.1", true),
            ("127.0.0.1", "10.9.9.1", true),
            ("::1", "fd00:9::1", true),
            ("10.9.9.1", "10.9.9.1", true),
            ("fd00:9::1", "fd00:9::1", true),
            ("10.9.9.2", "10.9.9.1", false),
            ("10.9.9.1", "127.0.0.1", false),
            ("fd00:9::1", "::1", false),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:10.9.9.1", "::ffff:10.9.9.1", true),
            ("::ffff:127.0.0.5", "::ffff:127.0.0.1", false),
            ("::ffff:10.9.9.2", "::ffff:10.9.9.1", false),
        ];
        for (peer, own, local) in rows {
            let parse = |text: &str| text.parse().expect("an address");
            assert_eq!(is_local(parse(peer), parse(own)), local, "{peer} to {own}");
        }
    }
}
