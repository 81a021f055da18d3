//! Connections that other daemons open: from the EPMD port, where the first byte told them apart, to the protocol they ask
//! for.
//!
//! A connection without a proven peer costs a bounded amount for a bounded time, and one address cannot use up what is
//! there for all.

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

/// Connections that wait for their handshake to begin.
const QUEUE: usize = 256;
/// Handshakes at once: at about 25 KiB each a bounded price for strangers.
const HANDSHAKES: usize = 128;
/// Of these, from one address: hosts behind one address may start together, and one host alone shall not keep all others
/// out.
const HANDSHAKES_OF_ONE: usize = 48;

/// A connection that began with TLS and whose peer is not proven yet.
#[derive(Debug)]
pub struct PendingConnection {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// The address of its other end.
    pub address: SocketAddr,
    /// Bytes that were read to tell it apart.
    pub head: Vec<u8>,
    /// Its descriptor's permit.
    pub permit: Permit,
}

/// Takes pending connections from the threads of the EPMD port.
#[derive(Debug, Clone)]
pub struct AcceptQueue(mpsc::Sender<PendingConnection>);

impl AcceptQueue {
    /// The sending and the receiving end.
    #[must_use]
    pub fn new() -> (AcceptQueue, mpsc::Receiver<PendingConnection>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (AcceptQueue(sender), receiver)
    }

    /// Puts a connection into the queue; closes it and returns false if the queue is full.
    #[must_use]
    pub fn offer(&self, pending: PendingConnection) -> bool {
        self.0.try_send(pending).is_ok()
    }
}

/// Handshakes under way, by address.
#[derive(Debug, Default)]
struct Handshakes(Mutex<(usize, HashMap<IpAddr, usize>)>);

impl Handshakes {
    /// The right to one more with this address, if there is room.
    fn begin(self: &Arc<Handshakes>, address: IpAddr) -> Option<Handshake> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *all;
        let own = by_address.get(&address).copied().unwrap_or_default();
        if *total >= HANDSHAKES || own >= HANDSHAKES_OF_ONE {
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

/// What accepting connections needs of the rest of the daemon.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// This daemon.
    pub identity: Arc<LocalIdentity>,
    /// The protocols that peers may ask for.
    pub protocols: Protocols,
    /// Counts handshakes and their failures.
    pub counters: Arc<Counters>,
    /// Remembers who was refused.
    pub refusals: Arc<Refusals>,
}

impl Acceptor {
    /// Serves the connections that come through the queue, until its sending end is gone.
    pub async fn serve(self, mut queue: mpsc::Receiver<PendingConnection>) {
        let handshakes = Arc::new(Handshakes::default());
        let log = LimitedLog::new(Handle::current());
        while let Some(PendingConnection { socket, address, head, permit }) = queue.recv().await {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let Some(handshake) = handshakes.begin(address.ip()) else {
                let text = "too many handshakes are in progress";
                self.counters.handshakes_full.add();
                complain(&log, address, "full", text.into());
                self.refusals.note(address.ip(), false, "full", text);
                continue;
            };
            // The shard has made it non-blocking.
            let socket = match TcpStream::from_std(StdStream::from(socket)) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::debug!(%address, "cannot use a connection: {error}");
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
                        None => tracing::debug!(%address, "a peer asked for a protocol that is not served"),
                    },
                    Err(error) => acceptor.refuse(&log, address, &error),
                }
            });
        }
    }

    /// Carries out both handshakes; the peer, and the ALPN of the protocol it asks for.
    async fn handshake(&self, connection: Connection) -> Result<(ProvenPeer, Vec<u8>), HandshakeError> {
        let tls = self.identity.tls();
        let stream = TlsAcceptor::from(tls.server()).accept(connection).await?;
        let alpn = match stream.get_ref().1.alpn_protocol() {
            Some(alpn) => alpn.to_vec(),
            None => return Err(HandshakeError::Tls("the peer named no protocol".into())),
        };
        let peer = handshake::run(TlsStream::from(stream), &self.identity, &tls, Role::Acceptor).await?;
        Ok((peer, alpn))
    }

    fn refuse(&self, log: &Arc<LimitedLog>, address: SocketAddr, error: &HandshakeError) {
        // A peer that only asked for the identity has closed with a reason; and hosts may share one list of seeds, in
        // which each finds itself.
        if matches!(error, HandshakeError::Refused { .. } | HandshakeError::Oneself) {
            return;
        }
        error.count(&self.counters);
        complain(log, address, error.label(), error.to_string());
        self.refusals.note_error(address.ip(), false, error);
    }
}

/// Writes a log line about a rejected peer, subject to the rate limit. The source port differs each time, so it is not part
/// of what makes two lines alike.
fn complain(log: &Arc<LimitedLog>, address: SocketAddr, reason: &'static str, text: String) {
    log.warn(format!("{} {text}", address.ip()), move |more| {
        tracing::warn!(peer = %address, reason, "rejected peer: {text}{more}");
    });
}
