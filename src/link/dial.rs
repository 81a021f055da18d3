//! Reaching another daemon: from addresses to a greeted peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, Purpose};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Sight;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::{TlsConnector, TlsStream};

use super::connection::Wire;
use super::handshake;
use super::handshake::{Greeted, GreetingError};
use super::local_identity::Me;
use super::permit::Place;
use super::session;
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_LINK, ALPN_PACKET, Tls};
use crate::cluster::driver::{Core, Input};
use crate::daemon::Context;

/// How long one address may take to accept a connection, while there are others to be tried.
const CONNECT: Duration = Duration::from_secs(2);
/// Dials at once. The membership asks for a few in each second; more are due when half of the cluster is gone, and those
/// may wait for the next turn.
const DIALS: usize = 64;

/// Why nobody was reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection came about.
    #[error("{address}: {source}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no address to dial.
    #[error("it has no address")]
    NoAddress,
    /// The connection did not become a link.
    #[error("{address}: {source}")]
    Greeting {
        /// The address that answered.
        address: SocketAddr,
        /// Why.
        source: GreetingError,
    },
}

impl DialError {
    /// What a member that could not be reached looks like to the others.
    fn sight(&self) -> Sight {
        match self {
            DialError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Sight::Refused
            }
            // Somebody answers, but it is not the daemon that lived there.
            DialError::Greeting { source: GreetingError::Stranger | GreetingError::Oneself, .. } => {
                Sight::Refused
            }
            _ => Sight::Silent,
        }
    }
}

/// Dials on behalf of the core.
#[derive(Debug, Clone)]
pub struct Dialer {
    me: Arc<Me>,
    context: Arc<Context>,
    runtime: Handle,
    permits: Arc<Semaphore>,
    probe_patience: Duration,
}

impl Dialer {
    /// A dialer whose work is done by `runtime`; probes end after `probe_patience`.
    pub fn new(me: Arc<Me>, context: Arc<Context>, runtime: Handle, probe_patience: Duration) -> Dialer {
        Dialer { me, context, runtime, permits: Arc::new(Semaphore::new(DIALS)), probe_patience }
    }

    /// Dials a member, and tells the core what came of it.
    pub fn dial(&self, core: Core, peer: Identity, purpose: Purpose) {
        let dialer = self.clone();
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        self.runtime.spawn(async move {
            let place = Place::take(&dialer.context);
            let event = match (purpose, permit.ok().zip(place)) {
                (Purpose::Link, Some((permit, _place))) => {
                    match dialer.reach(&peer.addresses, Some(peer.id)).await {
                        Ok(greeted) => {
                            drop(permit);
                            session::serve(greeted, true, core, dialer.context).await;
                            return;
                        }
                        Err(error) => {
                            dialer.context.counters.dials_failed.add();
                            match &error {
                                // One of the two has said no; as seldom as the back-off of dials is.
                                DialError::Greeting { source, .. } => {
                                    tracing::warn!(peer = ?peer.id, reason = source.label(), "no link to a member: {error}");
                                }
                                _ => tracing::debug!(peer = ?peer.id, "cannot reach a member: {error}"),
                            }
                            LinkEvent::Failed { peer: peer.id }
                        }
                    }
                }
                (Purpose::Link, None) => LinkEvent::Failed { peer: peer.id },
                (Purpose::Probe(token), Some(_right)) => {
                    LinkEvent::Probed { token, sight: dialer.probe(&peer).await }
                }
                (Purpose::Probe(token), None) => LinkEvent::Probed { token, sight: Sight::Silent },
            };
            let _ = core.send(Input::Link(event)).await;
        });
    }

    /// Dials these addresses, one after the other, for a link to `expected` or to whoever answers.
    ///
    /// # Errors
    ///
    /// If no address leads to a link.
    pub async fn reach(
        &self,
        addresses: &[SocketAddr],
        expected: Option<NodeId>,
    ) -> Result<Greeted, DialError> {
        self.greet(addresses, expected, ALPN_LINK).await
    }

    /// The same for a short connection that carries membership packets.
    ///
    /// # Errors
    ///
    /// If no address leads to the peer.
    pub async fn reach_for_packets(&self, peer: &Identity) -> Result<Greeted, DialError> {
        self.greet(&peer.addresses, Some(peer.id), ALPN_PACKET).await
    }

    /// The same for a connection with this protocol.
    ///
    /// # Errors
    ///
    /// If no address leads to the peer.
    pub async fn greet(
        &self,
        addresses: &[SocketAddr],
        expected: Option<NodeId>,
        alpn: &[u8],
    ) -> Result<Greeted, DialError> {
        let mut last = DialError::NoAddress;
        for &address in addresses {
            let tls = self.me.tls();
            let attempt = async {
                let stream = handshake(address, &tls, alpn, expected).await?;
                handshake::greet(stream, &self.me, &tls, Role::Initiator)
                    .await
                    .map_err(|source| DialError::Greeting { address, source })
            };
            match tokio::time::timeout(handshake::PATIENCE, attempt).await {
                Ok(Ok(greeted)) => return Ok(greeted),
                Ok(Err(error)) => {
                    if let DialError::Greeting { source, .. } = &error {
                        self.context.refusals.note_error(address.ip(), true, source);
                    }
                    last = worse(last, error);
                }
                Err(_) => last = worse(last, DialError::Greeting { address, source: GreetingError::Late }),
            }
        }
        Err(last)
    }

    /// Greets `expected` over a connection that is there, as the side that has dialled.
    ///
    /// # Errors
    ///
    /// If somebody else answers, or one side does not let the other in.
    pub async fn greet_over(&self, wire: Wire, expected: NodeId, alpn: &[u8]) -> Result<Greeted, DialError> {
        let address = wire.address();
        let tls = self.me.tls();
        let stream = handshake_over(wire, &tls, alpn, Some(expected)).await?;
        handshake::greet(stream, &self.me, &tls, Role::Initiator)
            .await
            .map_err(|source| DialError::Greeting { address, source })
    }

    /// Whether a member answers, in the life that is meant.
    async fn probe(&self, peer: &Identity) -> Sight {
        let attempt = async {
            let mut sight = Sight::Silent;
            for &address in &peer.addresses {
                let tls = self.me.tls();
                let stream = match handshake(address, &tls, ALPN_PACKET, Some(peer.id)).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        sight = error.sight();
                        continue;
                    }
                };
                match handshake::ask_identity(stream, &self.me, &tls).await {
                    Ok(hello) if hello.generation == peer.generation => return Sight::Reached,
                    // A later life: the one that is meant is over.
                    Ok(_) => return Sight::Refused,
                    Err(_) => sight = Sight::Silent,
                }
            }
            sight
        };
        tokio::time::timeout(self.probe_patience, attempt).await.unwrap_or(Sight::Silent)
    }
}

/// Which of two failures says more: one that came from a daemon.
fn worse(before: DialError, now: DialError) -> DialError {
    if matches!(before, DialError::Greeting { .. }) && matches!(now, DialError::Connect { .. }) {
        before
    } else {
        now
    }
}

async fn handshake(
    address: SocketAddr,
    tls: &Tls,
    alpn: &[u8],
    expected: Option<NodeId>,
) -> Result<TlsStream<Wire>, DialError> {
    let connect = |source| DialError::Connect { address, source };
    let socket = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(socket) => socket.map_err(connect)?,
        Err(_) => return Err(connect(io::ErrorKind::TimedOut.into())),
    };
    handshake_over(Wire::new(socket, address, Vec::new()), tls, alpn, expected).await
}

async fn handshake_over(
    wire: Wire,
    tls: &Tls,
    alpn: &[u8],
    expected: Option<NodeId>,
) -> Result<TlsStream<Wire>, DialError> {
    let address = wire.address();
    let greeting = |source| DialError::Greeting { address, source };
    // Daemons are known by their keys; the name is never sent.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(tls.client(alpn)).connect(name, wire).await;
    let stream = TlsStream::from(stream.map_err(|error| greeting(error.into()))?);
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(alpn) {
        return Err(greeting(GreetingError::Tls("it does not speak pmd's protocol".into())));
    }
    match (tls.peer(connection.peer_certificates()), expected) {
        (Some(found), Some(expected)) if found != expected => Err(greeting(GreetingError::Stranger)),
        _ => Ok(stream),
    }
}
