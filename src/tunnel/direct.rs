//! Checks which nodes need no [tunnel](super::reachability): connects to the daemon of a host, and to the port of a node,
//! which must answer as that node does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use tokio::net::TcpStream;

use super::probe::{self, ProbeError};
use super::proven;
use super::reachability::{AGAIN_MS, Candidate, Why};
use super::state::Tunnels;
use super::tls_hello::speaks_tls;
use crate::auth::tls::ALPN_TUNNEL;
use crate::link::dial_targets::DialTargets;

/// Maximum number of addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;
/// Timeout for the proof of a host, and for the answer of a node.
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
        tunnels.parts.dialer.runtime().spawn(check(Arc::clone(tunnels), candidate, Why::Due));
    }
}

/// Checks a node that a program asks for.
pub(super) fn check_asked(tunnels: &Arc<Tunnels>, candidate: Candidate) {
    tunnels.parts.dialer.runtime().spawn(check(Arc::clone(tunnels), candidate, Why::Asked));
}

/// Checks whether a node needs a tunnel.
async fn check(tunnels: Arc<Tunnels>, candidate: Candidate, why: Why) {
    let Some(_turn) = tunnels.reachable.turn(&candidate, why).await else { return };
    let asker = probe::own_name(tunnels.parts.identity.host().as_str());
    let host = tunnels.parts.directory.host_of(&candidate.origin).unwrap_or_default();
    let known_tls = tunnels.reachable.tls(&candidate);
    let own = tunnels.parts.identity.identity().addresses;
    let advertised = tunnels.parts.directory.addresses_of(&candidate.origin);
    let targets = DialTargets::of_member(&own, &advertised);
    let (mut direct, mut tls) = (Vec::new(), Vec::new());
    for address in targets.addresses().iter().take(MAX_ADDRESSES) {
        let ip = address.ip().to_canonical();
        // The proof comes first: nobody is made to connect to ports of hosts that are no members.
        if !is_proven(&tunnels, candidate.origin, *address).await {
            continue;
        }
        let answer = who_answers(ip, &candidate, &host, &asker, known_tls.contains(&ip));
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Answer::Node) => direct.push(ip),
            Ok(Answer::Tls) => {
                direct.push(ip);
                tls.push(ip);
            }
            Ok(Answer::Other) | Err(_) => {}
        }
    }
    tunnels.reachable.checked(&candidate, direct, tls);
}

/// Who answers at the port of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A node of that name.
    Node,
    /// A program with TLS, as a node with TLS distribution is.
    Tls,
    /// Another program, or nobody.
    Other,
}

/// Finds out who answers at the port of a node on `host`. If it spoke TLS the last time, it only has to be there: it would
/// log each attempt to speak with it as a failed handshake.
async fn who_answers(ip: IpAddr, candidate: &Candidate, host: &str, asker: &str, spoke_tls: bool) -> Answer {
    let Ok(mut stream) = TcpStream::connect((ip, candidate.port)).await else { return Answer::Other };
    if spoke_tls {
        return Answer::Tls;
    }
    match probe::greet(&mut stream, asker).await {
        Ok(node) if is_name_of(&node, &candidate.name, host) => Answer::Node,
        Err(ProbeError::Tls) => Answer::Tls,
        // One of TLS distribution may close a connection that does not begin as TLS.
        Err(ProbeError::Closed) => {
            drop(stream);
            let Ok(mut again) = TcpStream::connect((ip, candidate.port)).await else { return Answer::Other };
            let is_tls = matches!(speaks_tls(&mut again, host).await, Ok(true));
            if is_tls { Answer::Tls } else { Answer::Other }
        }
        Ok(_) | Err(_) => Answer::Other,
    }
}

/// Whether the node `name` on `host` may call itself `node`: with a short or long name of the host, or one of its addresses.
fn is_name_of(node: &str, name: &str, host: &str) -> bool {
    let first = |host: &str| host.split('.').next().unwrap_or_default().to_lowercase();
    node.split_once('@')
        .is_some_and(|(own, at)| own == name && (at.parse::<IpAddr>().is_ok() || first(at) == first(host)))
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is found at the port of the node `bar` on `far` if a program there sends this to whoever connects.
    async fn found(sends: &[u8], spoke_tls: bool) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let candidate = Candidate { origin: NodeId::MIN, name: "bar".into(), port: address.port() };
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(sends).await.expect("it is open");
                stream.shutdown().await.expect("it is open");
                // A connection with unread input would be reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        };
        tokio::select! {
            answer = who_answers(address.ip(), &candidate, "far.example.org", "pmd-ping@here", spoke_tls) => answer,
            () = serve => Answer::Other,
        }
    }

    fn node(name: &str) -> Vec<u8> {
        let challenge = [&b"N"[..], &[0; 18], name.as_bytes()].concat();
        let length = u16::try_from(challenge.len()).expect("it is short");
        [&b"\0\x03sok"[..], &length.to_be_bytes(), &challenge].concat()
    }

    #[tokio::test]
    async fn only_the_node_itself_needs_no_tunnel() {
        for name in ["bar@far", "bar@FAR.example.org", "bar@10.0.0.1"] {
            assert_eq!(found(&node(name), false).await, Answer::Node, "{name}");
        }
        for name in ["bar@near", "baz@far", "bar"] {
            assert_eq!(found(&node(name), false).await, Answer::Other, "{name}");
        }
        assert_eq!(found(b"", false).await, Answer::Other, "it only accepts connections");
        assert_eq!(found(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await, Answer::Other);
        assert_eq!(found(b"\x15\x03\x03\x00\x02\x02\x0a", false).await, Answer::Tls);
        assert_eq!(found(b"", true).await, Answer::Tls, "it is left in peace");
    }
}
