//! Hands off connections on the EPMD port that are not EPMD: those to the address of a node on another host to the tunnels,
//! TLS to the acceptor of peers, HTTP to the status page.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pmd_epmd::descriptors::Descriptors;
use pmd_epmd::server::{Asker, Handoff};

use crate::base::permit::Permit;
use crate::base::stats::Counters;
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
    /// Whether this connection is one to a node on another host, whatever its first byte. Only programs on this host can
    /// connect to such an address, so the system call for it is saved for others.
    fn leads_to_a_node(&self, asker: &Asker<'_>) -> bool {
        asker.is_loopback() && self.entrances.leads_to_a_node(|| asker.own_address())
    }
}

impl Handoff for Dispatcher {
    fn wants(&self, asker: &Asker<'_>, head: &[u8]) -> bool {
        head.first() == Some(&TLS_HANDSHAKE)
            || (self.web.is_some() && is_http(head))
            || self.leads_to_a_node(asker)
    }

    fn take(&self, socket: OwnedFd, peer: SocketAddr, head: &[u8]) {
        let head = head.to_vec();
        let asker = Asker::new(&socket, Some(peer));
        if self.leads_to_a_node(&asker)
            && let Some(address) = asker.own_address()
        {
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
