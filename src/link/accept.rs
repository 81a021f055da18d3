//! Incoming connections from other daemons: detected by their first byte on the EPMD port, authenticated, and passed to
//! the protocol they request.
//!
//! A connection whose peer is not proven costs bounded resources for a bounded time, and one address cannot exhaust the
//! limit for all.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::connection::Connection;
use super::handshake::{self, HandshakeError, ProvenPeer};
use super::local_identity::LocalIdentity;
use super::protocol::Protocols;
use super::refusals::Refusals;
use crate::auth::proof::Role;
use crate::base::log::limited::LimitedLog;
use crate::base::permit::Permit;
use crate::base::stats::Counters;

/// Connections waiting for their handshake to begin.
const QUEUE: usize = 256;
/// Concurrent handshakes. At about 25 KiB each, this bounds the memory that unauthenticated peers can use.
const HANDSHAKES: usize = 128;
/// Concurrent handshakes from one address: enough for several hosts behind one NAT to start together, but not enough to
/// lock out all others.
const HANDSHAKES_PER_ADDRESS: usize = 48;

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

/// Handshakes in progress: the total, and the number per address.
#[derive(Debug, Default)]
struct Handshakes(Mutex<(usize, HashMap<IpAddr, usize>)>);

impl Handshakes {
    /// Registers a handshake with this address, unless a limit is reached.
    fn begin(self: &Arc<Handshakes>, address: IpAddr) -> Option<Handshake> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *all;
        let own = by_address.get(&address).copied().unwrap_or_default();
        if *total >= HANDSHAKES || own >= HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *total += 1;
        by_address.insert(address, own + 1);
        Some(Handshake { all: Arc::clone(self), address })
    }
}

#[derive(Debug)]
struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *all;
        *total -= 1;
        if let Some(own) = by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts connections from other daemons.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// This daemon's identity.
    pub identity: Arc<LocalIdentity>,
    /// The protocols that peers may request.
    pub protocols: Protocols,
    /// Counts handshakes and their failures.
    pub counters: Arc<Counters>,
    /// Remembers rejected peers.
    pub refusals: Arc<Refusals>,
}

impl Acceptor {
    /// Serves the queued connections until the sending end of the queue is dropped.
    pub async fn serve(self, mut queue: mpsc::Receiver<PendingConnection>) {
        let handshakes = Arc::new(Handshakes::default());
        let log = LimitedLog::new(Handle::current());
        while let Some(PendingConnection { socket, address, head, permit }) = queue.recv().await {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let Some(handshake) = handshakes.begin(address.ip()) else {
                let text = "too many handshakes in progress";
                self.counters.handshakes_full.add();
                log_rejection(&log, address, "full", text.into());
                self.refusals.note(address.ip(), false, "full", text);
                continue;
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
                let proven = Box::pin(acceptor.handshake(connection));
                let proven = tokio::time::timeout(handshake::TIMEOUT, proven).await;
                drop(handshake);
                match proven.unwrap_or(Err(HandshakeError::Timeout)) {
                    Ok((peer, alpn)) => match acceptor.protocols.find(&alpn) {
                        Some(protocol) => protocol.serve(peer, permit).await,
                        None => tracing::debug!(%address, "a peer requested a protocol that is not served"),
                    },
                    Err(error) => acceptor.reject(&log, address, &error),
                }
            });
        }
    }

    /// Performs the TLS handshake and pmd's. Returns the peer and the ALPN of the protocol it requests.
    async fn handshake(&self, connection: Connection) -> Result<(ProvenPeer, Vec<u8>), HandshakeError> {
        let tls = self.identity.tls();
        let stream = TlsAcceptor::from(tls.server()).accept(connection).await?;
        let alpn = match stream.get_ref().1.alpn_protocol() {
            Some(alpn) => alpn.to_vec(),
            None => return Err(HandshakeError::Tls("the peer requested no protocol".into())),
        };
        let peer = handshake::run(TlsStream::from(stream), &self.identity, &tls, Role::Acceptor).await?;
        Ok((peer, alpn))
    }

    fn reject(&self, log: &Arc<LimitedLog>, address: SocketAddr, error: &HandshakeError) {
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
    log.warn(format!("{} {text}", address.ip()), move |more| {
        tracing::warn!(peer = %address, reason, "rejected peer: {text}{more}");
    });
}
