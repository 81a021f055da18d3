//! Checks which nodes need no [tunnel](super::reachability): connects to the daemon of a host, and to the port of a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use tokio::net::TcpStream;

use super::proven;
use super::reachability::{AGAIN_MS, Candidate};
use super::state::Tunnels;
use crate::auth::tls::ALPN_TUNNEL;
use crate::link::dial_targets::DialTargets;

/// Maximum number of addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;
/// Timeout for the proof of a host, and for the connection to a node.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks nodes again from time to time.
pub(super) async fn check_again(tunnels: Arc<Tunnels>) {
    loop {
        tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
        check_all(&tunnels, tunnels.reachable.due());
    }
}

/// Checks nodes in the background.
pub(super) fn check_all(tunnels: &Arc<Tunnels>, candidates: Vec<Candidate>) {
    for candidate in candidates {
        tunnels.parts.dialer.runtime().spawn(check(Arc::clone(tunnels), candidate));
    }
}

/// Checks whether a node needs a tunnel.
async fn check(tunnels: Arc<Tunnels>, candidate: Candidate) {
    // The semaphore is never closed.
    let _permit = tunnels.reachable.at_once.acquire().await;
    let own = tunnels.parts.identity.identity().addresses;
    let advertised = tunnels.parts.directory.addresses_of(&candidate.origin);
    let targets = DialTargets::of_member(&own, &advertised);
    let mut direct = Vec::new();
    for address in targets.addresses().iter().take(MAX_ADDRESSES) {
        let ip = address.ip().to_canonical();
        let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect((ip, candidate.port)));
        // The proof comes first: nobody is made to connect to ports of hosts that are no members.
        if is_proven(&tunnels, candidate.origin, *address).await && matches!(connect.await, Ok(Ok(_))) {
            direct.push(ip);
        }
    }
    tunnels.reachable.checked(&candidate, direct);
}

/// Whether the daemon has proven, just now or within the interval of checks, that it is at this address.
async fn is_proven(tunnels: &Arc<Tunnels>, origin: NodeId, address: SocketAddr) -> bool {
    if let Some(proven) = tunnels.reachable.proof(origin, address) {
        return proven;
    }
    let addresses = [address];
    let reached = tunnels.parts.dialer.reach(&addresses, Some(origin), ALPN_TUNNEL);
    let host = tunnels.parts.directory.host_of(&origin).unwrap_or_default();
    let proven = match tokio::time::timeout(TIMEOUT, reached).await {
        Ok(Ok(peer)) => proven::check(&peer.host, &host).is_ok(),
        _ => false,
    };
    tunnels.reachable.tried(origin, address, proven);
    proven
}
