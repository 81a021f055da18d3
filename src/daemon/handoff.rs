//! Hands off connections on the EPMD port that are not EPMD: those to the address of a node on another host to the tunnels,
//! TLS to the acceptor of peers, HTTP to the status page.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pmd_epmd::descriptors::Descriptors;
use pmd_epmd::server::{Asker, Handoff};

use crate::base::permit::Permit;
use crate::base::stats::Counters;
use crate::directory::Entrances;
use crate::link::accept::{AcceptQueue, PendingConnection};
use crate::tunnel::entry::TunnelEntrances;
use crate::web::{WebListener, is_http};

/// The first byte of a TLS connection (RFC 8446, section 5.1: handshake). No EPMD request begins with it, because the
/// request's length would exceed every limit.
const TLS_HANDSHAKE: u8 = 0x16;

/// Dispatches connections by the address to which they were made, and by their first bytes.
#[derive(Debug)]
pub(super) struct Dispatcher {
    /// Takes connections to nodes on other hosts.
    pub(super) entrances: Arc<TunnelEntrances>,
    /// Takes connections of other daemons.
    pub(super) peers: AcceptQueue,
    /// Takes HTTP connections; `None` if there is no status page.
    pub(super) web: Option<WebListener>,
    /// The budget of file descriptors.
    pub(super) descriptors: Arc<Descriptors>,
    /// Counts connections that there is no room for.
    pub(super) counters: Arc<Counters>,
}

impl Dispatcher {
    /// The address to which this connection was made, if it is that of a node on another host. Then it is a connection to the
    /// node, whatever its first byte. Only programs on this host can connect there, so the system call is saved for others.
    fn node_address(&self, asker: &Asker<'_>) -> Option<IpAddr> {
        if !asker.is_loopback() || !self.entrances.any_node() {
            return None;
        }
        asker.own_address().map(|own| own.to_canonical()).filter(|own| self.entrances.is_node(*own))
    }
}

impl Handoff for Dispatcher {
    fn wants(&self, asker: &Asker<'_>, head: &[u8]) -> bool {
        head.first() == Some(&TLS_HANDSHAKE)
            || (self.web.is_some() && is_http(head))
            || self.node_address(asker).is_some()
    }

    fn take(&self, socket: OwnedFd, peer: SocketAddr, head: &[u8]) {
        let head = head.to_vec();
        if let Some(address) = self.node_address(&Asker::new(&socket, Some(peer))) {
            return self.entrances.carry(address, socket, head);
        }
        if let Some(web) = self.web.as_ref().filter(|_| is_http(&head)) {
            return web.admit(socket, peer, head);
        }
        let permit = Permit::take(&self.descriptors);
        let pending = permit.map(|permit| PendingConnection { socket, address: peer, head, permit });
        if !pending.is_some_and(|pending| self.peers.offer(pending)) {
            self.counters.handshakes_full.add();
        }
    }
}
