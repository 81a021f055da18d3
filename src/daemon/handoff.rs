//! Hands off connections on the EPMD port that are not EPMD: TLS to the acceptor of peers, HTTP to the status page.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pmd_epmd::descriptors::Descriptors;
use pmd_epmd::server::Handoff;

use crate::base::permit::Permit;
use crate::base::stats::Counters;
use crate::link::accept::{AcceptQueue, PendingConnection};
use crate::web::{WebListener, is_http};

/// The first byte of a TLS connection (RFC 8446, section 5.1: handshake). No EPMD request begins with it, because the
/// request's length would exceed every limit.
const TLS_HANDSHAKE: u8 = 0x16;

/// Dispatches connections by their first bytes.
#[derive(Debug)]
pub(super) struct ByFirstByte {
    /// Takes connections of other daemons.
    pub(super) peers: AcceptQueue,
    /// Takes HTTP connections; `None` if there is no status page.
    pub(super) web: Option<WebListener>,
    /// The budget of file descriptors.
    pub(super) descriptors: Arc<Descriptors>,
    /// Counts connections that there is no room for.
    pub(super) counters: Arc<Counters>,
}

impl Handoff for ByFirstByte {
    fn wants(&self, head: &[u8]) -> bool {
        head.first() == Some(&TLS_HANDSHAKE) || (self.web.is_some() && is_http(head))
    }

    fn take(&self, socket: OwnedFd, peer: SocketAddr, head: &[u8]) {
        let head = head.to_vec();
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
