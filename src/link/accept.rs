//! Incoming connections from other daemons: detected by their first byte on the EPMD port, authenticated, and passed to
//! the protocol they request.
//!
//! A connection whose peer is not proven costs bounded resources for a bounded time; [`admission`](super::admission)
//! decides which of them are served while there are too many.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::admission::{Admission, Admitted, Full, HELLO_TIMEOUT, Pressure, Ticket};
use super::connection::Connection;
use super::handshake::{self, HandshakeError, ProvenPeer};
use super::known_addresses::KnownAddresses;
use super::local_identity::LocalIdentity;
use super::protocol::Protocols;
use super::refusals::Refusals;
use crate::auth::proof::Role;
use crate::base::clock::Monotonic;
use crate::base::foreign::ForeignText;
use crate::base::log::limited::{LimitedLog, Limits};
use crate::base::permit::Permit;
use crate::base::stats::Counters;

/// Connections waiting for the acceptor's task, which takes them without waiting for anything: more than arrive while
/// both of the runtime's threads are busy with handshakes. When it is full, newcomers are closed.
const QUEUE: usize = 256;

/// A connection that began with TLS and whose peer is not yet proven.
#[derive(Debug)]
pub struct PendingConnection {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// The peer's address.
    pub address: SocketAddr,
    /// Bytes that were read to detect the protocol.
    pub head: Vec<u8>,
    /// The permit for its descriptor.
    pub permit: Permit,
}

/// The sending end of the queue from the EPMD port's threads to the acceptor.
#[derive(Debug, Clone)]
pub struct AcceptQueue(mpsc::Sender<PendingConnection>);

impl AcceptQueue {
    /// Creates the queue; returns both ends.
    #[must_use]
    pub fn new() -> (AcceptQueue, mpsc::Receiver<PendingConnection>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (AcceptQueue(sender), receiver)
    }

    /// Queues a connection; closes it and returns false if the queue is full.
    #[must_use]
    pub fn offer(&self, pending: PendingConnection) -> bool {
        self.0.try_send(pending).is_ok()
    }
}

/// The handshakes in progress, and how to end them.
#[derive(Debug, Default)]
pub struct Handshakes(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    admission: Admission,
    /// Dropping one evicts its connection.
    slots: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Handshakes {
    /// Whether connections have to give way, or are turned away, because there are too many.
    pub fn pressure(&self) -> Option<Pressure> {
        self.progress().admission.pressure(Monotonic::now().as_ms())
    }

    /// Begins a handshake with this address, for which another may have to give way.
    fn begin(self: &Arc<Handshakes>, address: IpAddr, known: bool) -> Result<Handshake, Full> {
        let mut progress = self.progress();
        let Admitted { ticket, evicted } =
            progress.admission.admit(Monotonic::now().as_ms(), address, known)?;
        let (slot, evicting) = oneshot::channel();
        progress.slots.insert(ticket, slot);
        if let Some((evicted, _)) = evicted {
            progress.slots.remove(&evicted);
        }
        drop(progress);
        Ok(Handshake { slot: Slot { all: Arc::clone(self), ticket }, evicting })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One handshake in progress.
#[derive(Debug)]
struct Handshake {
    slot: Slot,
    /// Ends when the connection has to give way.
    evicting: oneshot::Receiver<()>,
}

/// The slot of a handshake, returned on drop.
#[derive(Debug)]
struct Slot {
    all: Arc<Handshakes>,
    ticket: Ticket,
}

impl Slot {
    fn hello_complete(&self) {
        self.all.progress().admission.hello_complete(self.ticket);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut progress = self.all.progress();
        progress.admission.end(self.ticket);
        progress.slots.remove(&self.ticket);
    }
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    /// The handshake failed.
    #[error(transparent)]
    Failed(#[from] HandshakeError),
    /// It was expelled.
    #[error("expelled {host} ({id:.8}) tries to come back: {source}")]
    Expelled {
        /// Its id.
        id: NodeId,
        /// Its host name, as its administrator knew it.
        host: ForeignText,
        /// How the handshake failed.
        source: HandshakeError,
    },
    /// The ClientHello took too long.
    #[error("no whole ClientHello within {} s", HELLO_TIMEOUT.as_secs())]
    SlowHello,
    /// It gave way to another.
    #[error("gave way to another connection, because there are too many handshakes in progress")]
    Evicted,
}

/// Accepts connections from other daemons.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// This daemon's identity.
    pub identity: Arc<LocalIdentity>,
    /// The protocols that peers may request.
    pub protocols: Protocols,
    /// The addresses whose handshakes have a reserved share.
    pub known: Arc<KnownAddresses>,
    /// The handshakes in progress.
    pub handshakes: Arc<Handshakes>,
    /// Counts handshakes and their failures.
    pub counters: Arc<Counters>,
    /// Remembers rejected peers.
    pub refusals: Arc<Refusals>,
}

impl Acceptor {
    /// Serves the queued connections until the sending end of the queue is dropped.
    pub async fn serve(self, mut queue: mpsc::Receiver<PendingConnection>) {
        let log = LimitedLog::new(Handle::current(), Limits::REPETITIONS);
        while let Some(PendingConnection { socket, address, head, permit }) = queue.recv().await {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let begun = self.handshakes.begin(address.ip(), self.known.contains(address.ip()));
            let handshake = match begun {
                Ok(handshake) => handshake,
                Err(full) => {
                    self.counters.handshakes_full.add();
                    log_rejection(&log, address, "full", full.to_string());
                    self.refusals.note(address.ip(), false, "full", &full.to_string());
                    continue;
                }
            };
            // `from_std` needs a non-blocking socket, which the shard has set.
            let socket = match TcpStream::from_std(StdStream::from(socket)) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::debug!(%address, "cannot register a connection with the runtime: {error}");
                    continue;
                }
            };
            let (acceptor, log) = (self.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let connection = Connection::new(socket, address, head);
                match acceptor.prove(connection, handshake).await {
                    Ok((peer, alpn)) => match acceptor.protocols.find(&alpn) {
                        Some(protocol) => protocol.serve(peer, permit).await,
                        None => tracing::debug!(%address, "a peer requested a protocol that is not served"),
                    },
                    Err(error) => acceptor.reject(&log, address, &error),
                }
            });
        }
    }

    /// Performs the handshake in the time that there is for it, unless the connection has to give way.
    async fn prove(
        &self,
        connection: Connection,
        handshake: Handshake,
    ) -> Result<(ProvenPeer, Vec<u8>), Unproven> {
        let Handshake { slot, evicting } = handshake;
        let proven = Box::pin(self.handshake(connection, &slot));
        tokio::select! {
            proven = tokio::time::timeout(handshake::TIMEOUT, proven) => {
                proven.unwrap_or(Err(HandshakeError::Timeout.into()))
            }
            // The sender is only dropped.
            _ = evicting => Err(Unproven::Evicted),
        }
    }

    /// Performs the TLS handshake and pmd's. Returns the peer and the ALPN of the protocol it requests.
    async fn handshake(
        &self,
        connection: Connection,
        slot: &Slot,
    ) -> Result<(ProvenPeer, Vec<u8>), Unproven> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), connection);
        let hello = tokio::time::timeout(HELLO_TIMEOUT, hello).await.map_err(|_| Unproven::SlowHello)?;
        let hello = hello.map_err(HandshakeError::from)?;
        slot.hello_complete();
        let tls = self.identity.tls();
        let stream = hello.into_stream(tls.server()).await.map_err(HandshakeError::from)?;
        let alpn = match stream.get_ref().1.alpn_protocol() {
            Some(alpn) => alpn.to_vec(),
            None => return Err(HandshakeError::Tls("the peer requested no protocol".into()).into()),
        };
        let key = tls.peer(stream.get_ref().1.peer_certificates());
        let proven = handshake::run(TlsStream::from(stream), &self.identity, &tls, Role::Acceptor).await;
        let peer = proven.map_err(|error| self.explain(key, error))?;
        Ok((peer, alpn))
    }

    /// Names the daemon if it was expelled: its key is known, whether or not it still knows the secret.
    fn explain(&self, key: Option<NodeId>, error: HandshakeError) -> Unproven {
        let tries_again = matches!(error, HandshakeError::Expelled { .. } | HandshakeError::Cookie);
        match key.filter(|_| tries_again).and_then(|id| self.identity.expulsion_of(&id)) {
            Some(expulsion) => Unproven::Expelled {
                id: expulsion.member,
                host: ForeignText::new(&expulsion.host),
                source: error,
            },
            None => error.into(),
        }
    }

    fn reject(&self, log: &Arc<LimitedLog>, address: SocketAddr, error: &Unproven) {
        let (counter, reason) = match error {
            Unproven::Failed(error) => return self.reject_peer(log, address, error),
            Unproven::Expelled { id, source, .. } => {
                source.count(&self.counters);
                log_rejection(log, address, "expelled", error.to_string());
                return self.refusals.note_expelled(address.ip(), *id, &error.to_string());
            }
            Unproven::SlowHello => (&self.counters.handshakes_timeout, "timeout"),
            Unproven::Evicted => (&self.counters.handshakes_evicted, "evicted"),
        };
        counter.add();
        log_rejection(log, address, reason, error.to_string());
        self.refusals.note(address.ip(), false, reason, &error.to_string());
    }

    fn reject_peer(&self, log: &Arc<LimitedLog>, address: SocketAddr, error: &HandshakeError) {
        // A peer that only asks for the identity closes with a reason, and a daemon whose own address is in its list of
        // seeds dials itself. Neither is a rejection.
        if matches!(error, HandshakeError::Refused { .. } | HandshakeError::Oneself) {
            return;
        }
        error.count(&self.counters);
        log_rejection(log, address, error.label(), error.to_string());
        self.refusals.note_error(address.ip(), false, error);
    }
}

/// Logs a rejected peer, subject to the rate limit. Lines that differ only in the source port count as the same.
fn log_rejection(log: &Arc<LimitedLog>, address: SocketAddr, reason: &'static str, text: String) {
    log.line(format!("{} {text}", address.ip()), move |more| {
        tracing::warn!(peer = %address, reason, "rejected peer: {text}{more}");
    });
}
