//! Dialling another daemon: from its addresses to a proven peer.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, Purpose};
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::{Observation, Reason};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::{TlsConnector, TlsStream};

use super::connection::Connection;
use super::dial_targets::DialTargets;
use super::handshake::{self, HandshakeError, ProvenPeer};
use super::inbox::LinkMessage;
use super::local_identity::LocalIdentity;
use super::proven_addresses::ProvenAddresses;
use super::refusals::Refusals;
use super::session::Links;
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_LINK, ALPN_PACKET, Tls};
use crate::base::permit::Permit;

/// Time for one address to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Head start of each address before the next is tried in parallel (RFC 8305, section 5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Concurrent dials. The membership requests a few per second. If half of the cluster is lost there are more, which can
/// wait for their next turn.
const MAX_DIALS: usize = 64;

/// Why a daemon could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address accepted a connection.
    #[error("{address}: {source}")]
    Connect {
        /// The address that failed last.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// There is no address to dial.
    #[error("it has no address")]
    NoAddress,
    /// An address accepted a connection, but the handshake failed.
    #[error("{address}: {source}")]
    Handshake {
        /// The address.
        address: SocketAddr,
        /// The handshake error.
        source: HandshakeError,
    },
}

impl DialError {
    /// The observation that other members are sent about a member that could not be reached.
    fn observation(&self) -> Observation {
        match self {
            DialError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Observation::Refused
            }
            // Something answers at the address, but it is not the expected daemon.
            DialError::Handshake {
                source: HandshakeError::OtherDaemon | HandshakeError::Oneself, ..
            } => Observation::Refused,
            // Whatever still answers is not a member any more.
            DialError::Handshake { source: HandshakeError::Revoked { .. }, .. } => Observation::Refused,
            // The expected daemon answers, but without a common secret it does not say in which generation.
            DialError::Handshake {
                source: HandshakeError::Cookie | HandshakeError::Refused { reason: Reason::Cookie, .. },
                ..
            } => Observation::Unknown,
            _ => Observation::Silent,
        }
    }

    /// The more informative of two failures: a handshake error says more than a network error.
    fn or_worse(self, next: DialError) -> DialError {
        match (&self, &next) {
            (DialError::Handshake { .. }, DialError::Connect { .. } | DialError::NoAddress) => self,
            _ => next,
        }
    }
}

/// Dials other daemons.
#[derive(Debug, Clone)]
pub struct Dialer {
    local: Arc<LocalIdentity>,
    descriptors: Arc<Descriptors>,
    refusals: Arc<Refusals>,
    proven: Arc<ProvenAddresses>,
    runtime: Handle,
    permits: Arc<Semaphore>,
}

impl Dialer {
    /// Creates a dialer whose connections run on `runtime`.
    pub fn new(
        local: Arc<LocalIdentity>,
        descriptors: Arc<Descriptors>,
        refusals: Arc<Refusals>,
        runtime: Handle,
    ) -> Dialer {
        let permits = Arc::new(Semaphore::new(MAX_DIALS));
        Dialer { local, descriptors, refusals, proven: Arc::default(), runtime, permits }
    }

    /// The runtime on which connections are served.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// This daemon's identity.
    pub fn local(&self) -> &Arc<LocalIdentity> {
        &self.local
    }

    /// Remembers that a member was proven over a link with this address.
    pub fn linked(&self, member: NodeId, address: IpAddr) {
        self.proven.add(member, address);
    }

    /// Dials a member for the core and sends it the outcome.
    pub fn dial(&self, links: Links, peer: Identity, purpose: Purpose) {
        let dialer = self.clone();
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        self.runtime.spawn(async move {
            let descriptor = Permit::take(&dialer.descriptors);
            let event = match (purpose, permit.ok().zip(descriptor)) {
                (Purpose::Link, Some((permit, _descriptor))) => {
                    match dialer.reach(&peer.addresses, Some(peer.id), ALPN_LINK).await {
                        Ok(proven) => {
                            drop(permit);
                            return links.serve(proven, true).await;
                        }
                        Err(error) => {
                            links.counters().dials_failed.add();
                            match &error {
                                // One side rejected the other. The backoff between dials limits these log lines.
                                DialError::Handshake { source, .. } => {
                                    tracing::warn!(peer = ?peer.id, reason = source.label(), "cannot link to a member: {error}");
                                }
                                _ => tracing::debug!(peer = ?peer.id, "cannot reach a member: {error}"),
                            }
                            LinkEvent::Failed { peer: peer.id }
                        }
                    }
                }
                (Purpose::Link, None) => LinkEvent::Failed { peer: peer.id },
                (Purpose::Probe { token, timeout_ms, discreet }, Some(_permits)) => {
                    let probe = dialer.probe(&peer, discreet);
                    let observed = tokio::time::timeout(Duration::from_millis(timeout_ms), probe).await;
                    LinkEvent::Probed { token, observation: observed.unwrap_or(Observation::Silent) }
                }
                // Could not look is not silent.
                (Purpose::Probe { token, .. }, None) => {
                    LinkEvent::Probed { token, observation: Observation::Unknown }
                }
            };
            // Fails only if the core has ended, and with it the daemon.
            let _ = links.inbox().send(LinkMessage::Dialled(event)).await;
        });
    }

    /// Dials these addresses until one leads to the `expected` daemon, or to any daemon of the cluster if `None`, that
    /// speaks `alpn`. The addresses are those that the `expected` member advertises, or an operator has named.
    ///
    /// # Errors
    ///
    /// If no address leads to such a daemon.
    pub async fn reach(
        &self,
        addresses: &[SocketAddr],
        expected: Option<NodeId>,
        alpn: &[u8],
    ) -> Result<ProvenPeer, DialError> {
        let mut failed = DialError::NoAddress;
        let targets = match expected {
            Some(_) => self.targets_of_member(addresses),
            None => DialTargets::of_operator(addresses),
        };
        let mut sockets = Sockets::dial(&targets);
        while let Some((address, connected)) = sockets.next().await {
            let attempt = async {
                let socket = connected.map_err(|source| DialError::Connect { address, source })?;
                self.reach_over(Connection::new(socket, address, Vec::new()), expected, alpn).await
            };
            let timeout = || DialError::Handshake { address, source: HandshakeError::Timeout };
            let outcome = tokio::time::timeout(handshake::TIMEOUT, attempt).await;
            match outcome.unwrap_or_else(|_| Err(timeout())) {
                Ok(proven) => {
                    self.local.set_barred(None);
                    return Ok(proven);
                }
                Err(error) => {
                    if let DialError::Handshake { source, .. } = &error {
                        self.refusals.note_error(address.ip(), true, source);
                    }
                    failed = failed.or_worse(error);
                }
            }
        }
        Err(failed)
    }

    /// Performs TLS and the handshake over an existing connection, as the dialling side.
    ///
    /// # Errors
    ///
    /// If a different daemon answers, or one side rejects the other.
    pub async fn reach_over(
        &self,
        connection: Connection,
        expected: Option<NodeId>,
        alpn: &[u8],
    ) -> Result<ProvenPeer, DialError> {
        let address = connection.address();
        let tls = self.local.tls();
        let stream = connect_tls(connection, &tls, alpn, expected).await?;
        handshake::run(stream, &self.local, &tls, Role::Initiator)
            .await
            .map_err(|source| DialError::Handshake { address, source })
    }

    fn targets_of_member(&self, advertised: &[SocketAddr]) -> DialTargets {
        DialTargets::of_member(&self.local.identity().addresses, advertised)
    }

    /// Whether a member answers in the expected generation. It waits for the member's first answer only, because probes
    /// are most frequent when many daemons are slow. If the observation is for others (`discreet`), only what was seen at
    /// addresses at which the member itself was before counts, besides that it was reached.
    async fn probe(&self, peer: &Identity, discreet: bool) -> Observation {
        let mut observation = Observation::Silent;
        let mut sockets = Sockets::dial(&self.targets_of_member(&peer.addresses));
        while let Some((address, connected)) = sockets.next().await {
            let asked = async {
                let socket = connected.map_err(|source| DialError::Connect { address, source })?;
                let connection = Connection::new(socket, address, Vec::new());
                let tls = self.local.tls();
                let stream = connect_tls(connection, &tls, ALPN_PACKET, Some(peer.id)).await?;
                let hello = handshake::ask_identity(stream, &self.local, &tls).await;
                hello.map_err(|source| DialError::Handshake { address, source })
            };
            match asked.await {
                Ok(hello) if hello.generation == peer.generation => return Observation::Reached,
                // The daemon has restarted, so the expected generation has ended.
                Ok(_) => return Observation::Refused,
                Err(_) if discreet && !self.proven.contains(peer.id, address.ip()) => {}
                Err(error) => observation = error.observation(),
            }
        }
        observation
    }
}

type Attempt = std::pin::Pin<Box<dyn Future<Output = (SocketAddr, io::Result<TcpStream>)> + Send>>;

/// Connection attempts to the addresses of one host. Each address has a head start over the next, so an address that
/// drops packets costs a short delay instead of a timeout (RFC 8305, "happy eyeballs").
struct Sockets {
    pending: VecDeque<SocketAddr>,
    attempts: FuturesUnordered<Attempt>,
}

impl Sockets {
    fn dial(targets: &DialTargets) -> Sockets {
        Sockets { pending: targets.addresses().iter().copied().collect(), attempts: FuturesUnordered::new() }
    }

    /// The next outcome; `None` once every address has had one.
    async fn next(&mut self) -> Option<(SocketAddr, io::Result<TcpStream>)> {
        if self.attempts.is_empty() {
            self.start();
        }
        loop {
            tokio::select! {
                outcome = self.attempts.next() => {
                    if matches!(outcome, Some((_, Err(_)))) {
                        self.start();
                    }
                    return outcome;
                }
                () = tokio::time::sleep(ATTEMPT_DELAY), if !self.pending.is_empty() => self.start(),
            }
        }
    }

    fn start(&mut self) {
        let Some(address) = self.pending.pop_front() else { return };
        self.attempts.push(Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            (address, connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
        }));
    }
}

async fn connect_tls(
    connection: Connection,
    tls: &Tls,
    alpn: &[u8],
    expected: Option<NodeId>,
) -> Result<TlsStream<Connection>, DialError> {
    let address = connection.address();
    let failed = |source| DialError::Handshake { address, source };
    // Daemons are identified by their keys. The API requires a name, which is never sent.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(tls.client(alpn)).connect(name, connection).await;
    let stream = TlsStream::from(stream.map_err(|error| failed(error.into()))?);
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(alpn) {
        return Err(failed(HandshakeError::Tls("the peer does not speak pmd's protocol".into())));
    }
    match (tls.peer(session.peer_certificates()), expected) {
        (Some(found), Some(expected)) if found != expected => Err(failed(HandshakeError::OtherDaemon)),
        _ => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use pmd_protocol::peer::Generation;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::auth::cookie::Cookies;
    use crate::config::types::IdentitySource;

    /// An address that drops packets delays the next one only by its head start.
    #[tokio::test]
    async fn an_address_that_never_answers_does_not_hold_up_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let answers = listener.local_addr().expect("bound");
        // A listener whose backlog is full: the kernel drops the SYN packets of further connections.
        let full = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        rustix::net::listen(&full, 0).expect("a queue of one");
        let drops = full.local_addr().expect("bound");
        let mut backlog = Vec::new();
        while let Ok(Ok(socket)) =
            tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(drops)).await
        {
            backlog.push(socket);
        }
        let begin = Instant::now();
        let mut sockets = Sockets::dial(&DialTargets::of_operator(&[drops, answers]));
        let (address, connected) = sockets.next().await.expect("an attempt");
        assert!(connected.is_ok() && address == answers, "{address} {connected:?}");
        assert!(begin.elapsed() < CONNECT_TIMEOUT, "it waited for the first to fail");
    }

    fn daemon(folder: &Path, name: &str, generation: u64, cookie: &str) -> Arc<LocalIdentity> {
        let key = folder.join(name);
        let tls = Arc::new(Tls::load(&IdentitySource::Auto { key }, name).expect("a key"));
        let generation = Generation { boot_ms: generation, nonce: 7 };
        // Only a daemon that has no other addresses itself dials loopback addresses of others.
        let own = [([127, 0, 0, 1], 4369).into()];
        let identity = watch::channel(Identity::new(tls.id(), generation, &own)).1;
        let cookies = Arc::new(Cookies::of_text(cookie));
        let host = name.parse().expect("a name");
        Arc::new(LocalIdentity::new("pmd".into(), host, identity, tls, cookies))
    }

    /// Probes `target`, and returns the outcome with how the handshake ended for `target`.
    async fn probed(
        prober: &Arc<LocalIdentity>,
        target: &Arc<LocalIdentity>,
        generation: u64,
    ) -> (Observation, HandshakeError) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let descriptors = Arc::new(Descriptors::new(1_024));
        let dialer = Dialer::new(Arc::clone(prober), descriptors, Arc::default(), Handle::current());
        let peer = Identity::new(target.id(), Generation { boot_ms: generation, nonce: 7 }, &[address]);
        let accepted = async {
            let (socket, from) = listener.accept().await.expect("a connection");
            let tls = target.tls();
            let stream = TlsAcceptor::from(tls.server()).accept(Connection::new(socket, from, Vec::new()));
            let stream = TlsStream::from(stream.await.expect("TLS"));
            handshake::run(stream, target, &tls, Role::Acceptor).await.expect_err("a probe is no link")
        };
        tokio::join!(dialer.probe(&peer, false), accepted)
    }

    #[tokio::test]
    async fn a_probe_of_a_restarted_daemon_is_refused() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let cookie = "c0".repeat(32);
        let prober = daemon(folder.path(), "prober", 1, &cookie);
        let target = daemon(folder.path(), "target", 5, &cookie);
        for (generation, expected) in [(5, Observation::Reached), (4, Observation::Refused)] {
            let (observation, ended) = probed(&prober, &target, generation).await;
            assert_eq!(observation, expected);
            // The probe ended with the target's first answer, without introducing the prober.
            let is_close = matches!(ended, HandshakeError::Refused { reason: Reason::NotNeeded, .. });
            assert!(is_close, "{ended:?}");
        }
    }

    /// It lives, but it does not say in which generation.
    #[tokio::test]
    async fn a_probe_of_a_daemon_with_another_secret_says_nothing() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let prober = daemon(folder.path(), "prober", 1, &"c0".repeat(32));
        let target = daemon(folder.path(), "target", 5, &"c1".repeat(32));
        let (observation, ended) = probed(&prober, &target, 5).await;
        assert_eq!(observation, Observation::Unknown);
        assert!(matches!(ended, HandshakeError::Cookie), "{ended:?}");
    }

    #[tokio::test]
    async fn a_handshake_error_outranks_a_refused_connection() {
        let refuses = {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            listener.local_addr().expect("bound")
        };
        let mut sockets = Sockets::dial(&DialTargets::of_operator(&[refuses]));
        let (_, connected) = sockets.next().await.expect("an attempt");
        let source = connected.expect_err("nothing is listening");
        let connect = DialError::Connect { address: refuses, source };
        let rejected = DialError::Handshake { address: refuses, source: HandshakeError::Cookie };
        assert!(matches!(rejected.or_worse(connect), DialError::Handshake { .. }));
    }
}
