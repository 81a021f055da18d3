//! Paths to hosts that cannot be dialled: they dial back, or both sides connect to a relay.
//!
//! ```text
//!   reverse   entry ── DialBack, over links ──▶ exit          relay   entry ── Relay ──▶ hub ── DialBack ──▶ exit
//!             entry ◀══ TLS, pmd-tunnel/1 ═══ exit                    entry ══ TLS ══ (hub) ══ TLS ══ exit
//! ```
//!
//! Through a relay, the tunnel's own TLS session and proof run end to end inside the connections to the relay, which
//! can neither read what it forwards nor impersonate either side.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::SinkExt;
use pmd_protocol::peer::frame::{Back, Close, DialBack, Opened, Reason, Relay};
use pmd_protocol::peer::{Frame, NodeId};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::dialback::{Decision, likely};
use super::path::Path;
use super::rendezvous::Expected;
use super::state::Tunnels;
use super::stream::{bare, first_frame};
use super::{exit, pipe};
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_RELAY, ALPN_TUNNEL};
use crate::base::clock::Monotonic;
use crate::base::foreign::ForeignText;
use crate::cluster::core::Sent;
use crate::link::connection::Connection;
use crate::link::dial::DialError;
use crate::link::handshake;
use crate::link::handshake::{HandshakeError, ProvenPeer, close};
use crate::link::local_identity::LocalIdentity;

/// Timeout for a dial-back.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Time without an answer after which a request is repeated, so that peers forward it further. Usually links take a few
/// milliseconds, and dialling back takes three round trips.
const REPEAT: Duration = Duration::from_millis(300);

/// Handles a dial-back request from a peer: carries it out, forwards it or drops it.
pub(super) fn on_dial_request(tunnels: &Arc<Tunnels>, peer: NodeId, request: DialBack) {
    let own = tunnels.parts.identity.id();
    let mut requests = tunnels.requests.lock().unwrap_or_else(PoisonError::into_inner);
    let decision = requests.decide(Monotonic::now().as_ms(), own, peer, &request);
    drop(requests);
    let counters = &tunnels.parts.counters;
    match decision {
        Decision::Known => return,
        Decision::TooMany => return counters.dial_requests_refused.add(),
        Decision::Dial | Decision::Deliver | Decision::Spread => {}
    }
    // Requests over the limit are dropped: the asker repeats them or tries another path.
    let Ok(permit) = Arc::clone(&tunnels.dialling_back).try_acquire_owned() else {
        return counters.dial_requests_refused.add();
    };
    let tunnels = Arc::clone(tunnels);
    tokio::spawn(async move {
        let _permit = permit;
        if decision == Decision::Dial {
            if let Err(error) = Box::pin(dial_back(&tunnels, request)).await {
                tracing::debug!(at = ?request.at, "cannot dial back: {error}");
            }
        } else {
            forward(&tunnels, peer, request, decision == Decision::Spread).await;
        }
    });
}

/// Forwards a request of others to its target, or if there is no link to it and `spread` is set, to peers that may have
/// one.
async fn forward(tunnels: &Tunnels, peer: NodeId, request: DialBack, spread: bool) {
    // Only members have links, so frames for others would be wasted.
    let members = [request.asker, request.target, request.at];
    if !members.iter().all(|member| tunnels.parts.directory.host_of(member).is_some()) {
        return;
    }
    let except = [peer, request.asker, request.at];
    let forwarded = send_request(tunnels, request, except, spread).await;
    tunnels.parts.counters.dial_requests_passed.add_many(forwarded.sent);
}

/// How many peers a request was sent to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Forwarded {
    sent: u64,
    /// The number of links whose send queue was full.
    dropped: u64,
}

impl Forwarded {
    fn of(sent: &[Sent]) -> Forwarded {
        let count =
            |what: Sent| u64::try_from(sent.iter().filter(|sent| **sent == what).count()).unwrap_or(u64::MAX);
        Forwarded { sent: count(Sent::Yes), dropped: count(Sent::NoRoom) }
    }

    fn plus(self, more: Forwarded) -> Forwarded {
        Forwarded { sent: self.sent + more.sent, dropped: self.dropped + more.dropped }
    }
}

/// Sends a request over the link to its target. If that fails and `spread` is set, sends it to the peers that are most
/// likely to have a link to the target, except for `except`.
async fn send_request(tunnels: &Tunnels, request: DialBack, except: [NodeId; 3], spread: bool) -> Forwarded {
    let core = &tunnels.parts.core;
    // If the core has ended, nothing was sent.
    let sent = core.send(vec![request.target], Frame::DialBack(request)).await.unwrap_or_default();
    let mut forwarded = Forwarded::of(&sent);
    if forwarded.sent == 0
        && spread
        && let Ok(view) = core.view().await
    {
        let others = others(request.target, view.links.iter().map(|link| link.id), &except);
        let sent = core.send(others, Frame::DialBack(request)).await.unwrap_or_default();
        forwarded = forwarded.plus(Forwarded::of(&sent));
    }
    tunnels.parts.counters.dial_requests_dropped.add_many(forwarded.dropped);
    forwarded
}

/// The `peers` that are most likely to have a link to `target`, except for `except`.
fn others(target: NodeId, peers: impl Iterator<Item = NodeId>, except: &[NodeId]) -> Vec<NodeId> {
    likely(target, peers.filter(|peer| *peer != target && !except.contains(peer)).collect())
}

/// Carries out a dial-back request.
async fn dial_back(tunnels: &Arc<Tunnels>, request: DialBack) -> Result<(), DialError> {
    let Some(permit) = tunnels.permit() else { return Ok(()) };
    let at = tunnels.parts.directory.addresses_of(&request.at);
    let through_relay = request.at != request.asker;
    let alpn = if through_relay { ALPN_RELAY } else { ALPN_TUNNEL };
    let mut peer = tunnels.parts.dialer.reach(&at, Some(request.at), alpn).await?;
    if peer.frames.send(&Frame::Back(Back { token: request.token })).await.is_err() {
        return Ok(());
    }
    let (peer, path) = if through_relay {
        let Some(Frame::Opened(_)) = first_frame(&mut peer.frames).await else { return Ok(()) };
        let (stream, early) = bare(peer.frames);
        let address = stream.get_ref().0.address();
        let accepted = accept(&tunnels.parts.identity, stream, early, request.asker);
        let accepted = tokio::time::timeout(handshake::TIMEOUT, accepted).await;
        let accepted = accepted.unwrap_or(Err(HandshakeError::Timeout));
        (accepted.map_err(|source| DialError::Handshake { address, source })?, Path::Relay.as_str())
    } else {
        (peer, "reverse")
    };
    // In its own task, so that the permit to dial back is released: a tunnel may last for months.
    let tunnels = Arc::clone(tunnels);
    tokio::spawn(async move {
        let (identity, from) = (Arc::clone(&tunnels.parts.identity), [peer.credentials.clone()]);
        tokio::select! {
            () = exit::serve(peer, tunnels, path) => {}
            () = identity.until_barred(&from) => {}
        }
        drop(permit);
    });
    Ok(())
}

/// Completes the handshake with `asker` through a relay.
async fn accept(
    identity: &LocalIdentity,
    relay: TlsStream<Connection>,
    early: Vec<u8>,
    asker: NodeId,
) -> Result<ProvenPeer, HandshakeError> {
    let tls = identity.tls();
    let stream = TlsAcceptor::from(tls.server()).accept(Connection::through(relay, early)).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_TUNNEL) {
        return Err(HandshakeError::Tls("the peer did not ask for a tunnel".into()));
    }
    let peer = handshake::run(TlsStream::from(stream), identity, &tls, Role::Acceptor).await?;
    if peer.hello.id == asker { Ok(peer) } else { Err(HandshakeError::OtherDaemon) }
}

/// Why a daemon did not dial back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDialBack {
    /// The request could not be sent because the send queues of the links were full.
    #[error("a dial-back request could not be sent because the send queues of the links are full")]
    Crowded,
    /// The request was sent over the available links, without effect.
    #[error("it did not dial back")]
    Silent,
}

/// Asks `target`, over the available links, to dial this daemon, and waits for its connection.
///
/// # Errors
///
/// If it does not dial back.
pub(super) async fn reverse(tunnels: &Arc<Tunnels>, target: NodeId) -> Result<ProvenPeer, NoDialBack> {
    let own = tunnels.parts.identity.id();
    let mut expected = tunnels.rendezvous.expect(target).ok_or(NoDialBack::Silent)?;
    let request = DialBack { asker: own, target, at: own, token: expected.token };
    await_dial(&mut expected, || send_request(tunnels, request, [own; 3], true)).await
}

/// Requests a dial-back and waits for the connection, with one repetition of the request.
async fn await_dial<F: Future<Output = Forwarded>>(
    expected: &mut Expected<'_>,
    ask: impl Fn() -> F,
) -> Result<ProvenPeer, NoDialBack> {
    let connection = async {
        let mut forwarded = ask().await;
        if let Ok(peer) = tokio::time::timeout(REPEAT, expected.arrival()).await {
            return peer.ok_or(NoDialBack::Silent);
        }
        // Perhaps no peer has a link to the target, but a peer's peer does.
        let again = ask().await;
        forwarded =
            Forwarded { sent: forwarded.sent + again.sent, dropped: forwarded.dropped + again.dropped };
        if forwarded.sent == 0 && forwarded.dropped > 0 {
            return Err(NoDialBack::Crowded);
        }
        expected.arrival().await.ok_or(NoDialBack::Silent)
    };
    tokio::time::timeout(TIMEOUT, connection).await.unwrap_or(Err(NoDialBack::Silent))
}

/// Reaches `target` through the relay `hub`.
///
/// # Errors
///
/// If the relay cannot be reached, or the target cannot be reached through it.
pub(super) async fn through(
    tunnels: &Arc<Tunnels>,
    hub: NodeId,
    target: NodeId,
) -> Result<ProvenPeer, DialError> {
    let at = tunnels.parts.directory.addresses_of(&hub);
    let mut peer = tunnels.parts.dialer.reach(&at, Some(hub), ALPN_RELAY).await?;
    let address = peer.address;
    let failed = |source| DialError::Handshake { address, source };
    let sent = peer.frames.send(&Frame::Relay(Relay { target })).await;
    sent.map_err(|error| failed(error.into()))?;
    match first_frame(&mut peer.frames).await {
        Some(Frame::Opened(_)) => {}
        Some(Frame::Close(Close { reason, text })) => {
            return Err(failed(HandshakeError::Refused { reason, text: ForeignText::new(&text) }));
        }
        _ => return Err(failed(HandshakeError::Closed)),
    }
    let (stream, early) = bare(peer.frames);
    let connection = Connection::through(stream, early);
    tunnels.parts.dialer.reach_over(connection, Some(target), ALPN_TUNNEL).await
}

/// Serves a connection to this daemon as a relay.
pub(super) async fn serve(mut peer: ProvenPeer, tunnels: Arc<Tunnels>) {
    let own = tunnels.parts.identity.id();
    let target = match first_frame(&mut peer.frames).await {
        Some(Frame::Relay(Relay { target })) => target,
        Some(Frame::Back(Back { token })) => return tunnels.rendezvous.deliver(&token, peer),
        _ => return,
    };
    let asker = peer.hello.id;
    let refuse = async |mut peer: ProvenPeer, reason, text: &str| {
        tunnels.parts.counters.tunnels_refused.add();
        tunnels.complain(|| format!("not relaying from {} to {target:?}: {text}", peer.host));
        close(&mut peer.frames, reason, text.to_owned()).await;
    };
    if !tunnels.settings().relay {
        return refuse(peer, Reason::Refused, "this host is not a relay (set relay = true)").await;
    }
    let both = [asker, target].map(|member| tunnels.parts.directory.host_of(&member).is_some());
    if both != [true, true] || target == own {
        return refuse(peer, Reason::Busy, "one of the two hosts is not a known member").await;
    }
    // The permit is for the target's connection, whose own permit is released when it is delivered here.
    let _seat = match tunnels.table().seat_for(asker, Some(peer.address.ip())) {
        Ok(seat) => seat,
        Err(error) => {
            error.count(&tunnels.parts.counters);
            return refuse(peer, Reason::Busy, &error.to_string()).await;
        }
    };
    let (Some(mut expected), Some(_permit)) = (tunnels.rendezvous.expect(target), tunnels.permit()) else {
        tunnels.parts.counters.tunnels_full.add();
        return refuse(peer, Reason::Busy, "the limit of relayed connections is reached").await;
    };
    let request = DialBack { asker, target, at: own, token: expected.token };
    let ask = || send_request(&tunnels, request, [asker; 3], true);
    let mut other = match await_dial(&mut expected, ask).await {
        Ok(other) => other,
        Err(NoDialBack::Silent) => {
            return refuse(peer, Reason::Busy, "the other host did not dial back").await;
        }
        Err(NoDialBack::Crowded) => {
            return refuse(peer, Reason::Busy, "the send queues of the links to the other host are full")
                .await;
        }
    };
    drop(expected);
    let opened = Frame::Opened(Opened { port: 0, took_us: 0 });
    if other.frames.send(&opened).await.is_err() || peer.frames.send(&opened).await.is_err() {
        return;
    }
    tunnels.parts.counters.relayed.add();
    let ends = [peer.credentials, other.credentials];
    let (mut near, near_early) = bare(peer.frames);
    let (mut far, far_early) = bare(other.frames);
    // The side that dialled back is the TLS server and waits for the client, so it cannot have sent anything yet.
    if !far_early.is_empty() {
        return;
    }
    tokio::select! {
        _ = pipe::join(&mut far, &mut near, (Vec::new(), near_early), &tunnels.parts.counters.relayed_bytes) => {}
        () = tunnels.parts.identity.until_barred(&ends) => {}
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
