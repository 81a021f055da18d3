//! Paths to hosts that cannot be dialled: they dial back, or both meet at a member that both can reach.
//!
//! ```text
//!   reverse   entry ── DialBack, over links ──▶ exit          relay   entry ── Relay ──▶ hub ── DialBack ──▶ exit
//!             entry ◀══ TLS, pmd-tunnel/1 ═══ exit                    entry ══ TLS ══ (hub) ══ TLS ══ exit
//! ```
//!
//! Through a relay, the tunnel's own TLS session and proof run inside the connections to it, end to end: it passes
//! ciphertext on, and can neither read it nor impersonate either side.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::SinkExt;
use pmd_protocol::peer::frame::{Back, DialBack, Opened, Reason, Relay};
use pmd_protocol::peer::{Frame, NodeId};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::dialback::{Decision, likely};
use super::rendezvous::Expected;
use super::state::Tunnels;
use super::stream::{bare, first_frame};
use super::{exit, pipe};
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_RELAY, ALPN_TUNNEL};
use crate::base::clock::Monotonic;
use crate::cluster::core::Sent;
use crate::link::connection::Connection;
use crate::link::dial::DialError;
use crate::link::handshake;
use crate::link::handshake::{HandshakeError, ProvenPeer, close};
use crate::link::local_identity::LocalIdentity;

/// Time for a daemon that was asked to dial back.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Time without an answer after which a request is repeated, which has it forwarded further. A link is a few milliseconds,
/// and dialling back takes three round trips.
const REPEAT: Duration = Duration::from_millis(300);

/// Decides about a request to dial back that a peer has sent: it is for this daemon, or to be forwarded.
pub(super) fn asked(tunnels: &Arc<Tunnels>, peer: NodeId, request: DialBack) {
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
    // A daemon that is asked for more than it can do drops it: the asker tries again, or another path.
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

/// Forwards a request of others to its target; without a link to it, to peers that may have one, if `spread`.
async fn forward(tunnels: &Tunnels, peer: NodeId, request: DialBack, spread: bool) {
    // Only for members: others have no links, and are not worth the frames that it takes to find that out.
    let members = [request.asker, request.target, request.at];
    if !members.iter().all(|member| tunnels.parts.directory.host_of(member).is_some()) {
        return;
    }
    let but = [peer, request.asker, request.at];
    let forwarded = send_on(tunnels, request, but, spread).await;
    tunnels.parts.counters.dial_requests_passed.add_many(forwarded.sent);
}

/// To how many peers a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Forwarded {
    sent: u64,
    /// Links that had no room for it.
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

/// Sends a request over the link to its target. If there is none, or it has no room, and `spread`, sends it to those peers
/// that are most likely to have one, except for `but`.
async fn send_on(tunnels: &Tunnels, request: DialBack, but: [NodeId; 3], spread: bool) -> Forwarded {
    let core = &tunnels.parts.core;
    // A core that has ended sends nothing.
    let sent = core.send(vec![request.target], Frame::DialBack(request)).await.unwrap_or_default();
    let mut forwarded = Forwarded::of(&sent);
    if forwarded.sent == 0
        && spread
        && let Ok(view) = core.view().await
    {
        let others = others(request.target, view.links.iter().map(|link| link.id), &but);
        let sent = core.send(others, Frame::DialBack(request)).await.unwrap_or_default();
        forwarded = forwarded.plus(Forwarded::of(&sent));
    }
    tunnels.parts.counters.dial_requests_dropped.add_many(forwarded.dropped);
    forwarded
}

/// Those of `peers`, except for `but`, that are most likely to have a link to `target`.
fn others(target: NodeId, peers: impl Iterator<Item = NodeId>, but: &[NodeId]) -> Vec<NodeId> {
    likely(target, peers.filter(|peer| *peer != target && !but.contains(peer)).collect())
}

/// Does what was asked for.
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
        (accepted.map_err(|source| DialError::Handshake { address, source })?, "relay")
    } else {
        (peer, "reverse")
    };
    // Served apart from the permit to dial back: a tunnel may last for months.
    let tunnels = Arc::clone(tunnels);
    tokio::spawn(async move {
        exit::serve(peer, tunnels, path).await;
        drop(permit);
    });
    Ok(())
}

/// Completes the handshake with `asker`, which comes through a relay.
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

/// Why a daemon that was asked to dial back has not done so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCome {
    /// It could not be asked: links have room for few messages.
    #[error("the links over which it would be asked to dial back have no room")]
    Crowded,
    /// It was asked, as far as there are links, and did not dial back.
    #[error("it does not dial back")]
    Silent,
}

/// Asks `target`, over whatever links there are, to dial this daemon, and waits for its connection.
///
/// # Errors
///
/// If it does not dial back.
pub(super) async fn reverse(tunnels: &Arc<Tunnels>, target: NodeId) -> Result<ProvenPeer, NotCome> {
    let own = tunnels.parts.identity.id();
    let mut expected = tunnels.rendezvous.expect(target).ok_or(NotCome::Silent)?;
    let request = DialBack { asker: own, target, at: own, token: expected.token };
    await_dial(&mut expected, || send_on(tunnels, request, [own; 3], true)).await
}

/// Asks for a connection until it is there, or it has taken too long.
async fn await_dial<F: Future<Output = Forwarded>>(
    expected: &mut Expected<'_>,
    ask: impl Fn() -> F,
) -> Result<ProvenPeer, NotCome> {
    let come = async {
        let mut forwarded = ask().await;
        if let Ok(come) = tokio::time::timeout(REPEAT, expected.come()).await {
            return come.ok_or(NotCome::Silent);
        }
        // None of the peers may have a link to it, but their peers may.
        let again = ask().await;
        forwarded =
            Forwarded { sent: forwarded.sent + again.sent, dropped: forwarded.dropped + again.dropped };
        if forwarded.sent == 0 && forwarded.dropped > 0 {
            return Err(NotCome::Crowded);
        }
        expected.come().await.ok_or(NotCome::Silent)
    };
    tokio::time::timeout(TIMEOUT, come).await.unwrap_or(Err(NotCome::Silent))
}

/// Reaches `target` through the relay `hub`.
///
/// # Errors
///
/// If the relay cannot be reached, or the target through it.
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
        Some(Frame::Close(bye)) => {
            return Err(failed(HandshakeError::Refused { reason: bye.reason, text: bye.text }));
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
        Some(Frame::Back(Back { token })) => return tunnels.rendezvous.take(&token, peer),
        _ => return,
    };
    let asker = peer.hello.id;
    let refuse = async |mut peer: ProvenPeer, reason, text: &str| {
        tunnels.parts.counters.tunnels_refused.add();
        tunnels.complain(|| format!("not relaying from {} to {target:?}: {text}", peer.host));
        close(&mut peer.frames, reason, text.to_owned()).await;
    };
    if !tunnels.settings().relay {
        return refuse(peer, Reason::Refused, "this host does not relay (relay = true)").await;
    }
    let both = [asker, target].map(|member| tunnels.parts.directory.host_of(&member).is_some());
    if both != [true, true] || target == own {
        return refuse(peer, Reason::Busy, "one of the two is not a member, as far as this host knows").await;
    }
    // The other connection is accepted as one that soon ends.
    let room = (tunnels.table().seat(), tunnels.rendezvous.expect(target), tunnels.permit());
    let (Some(_seat), Some(mut expected), Some(_permit)) = room else {
        tunnels.parts.counters.tunnels_full.add();
        return refuse(peer, Reason::Busy, "there is no room for more").await;
    };
    let request = DialBack { asker, target, at: own, token: expected.token };
    let ask = || send_on(&tunnels, request, [asker; 3], true);
    let mut other = match await_dial(&mut expected, ask).await {
        Ok(other) => other,
        Err(NotCome::Silent) => return refuse(peer, Reason::Busy, "the other host does not dial back").await,
        Err(NotCome::Crowded) => {
            return refuse(peer, Reason::Busy, "there is no room on the links to the other host").await;
        }
    };
    drop(expected);
    let opened = Frame::Opened(Opened { port: 0, took_us: 0 });
    if other.frames.send(&opened).await.is_err() || peer.frames.send(&opened).await.is_err() {
        return;
    }
    tunnels.parts.counters.relayed.add();
    let (mut near, near_early) = bare(peer.frames);
    let (mut far, far_early) = bare(other.frames);
    // The side that was asked to dial back waits for the other to begin, so it cannot have sent anything yet.
    if !far_early.is_empty() {
        return;
    }
    let _ = pipe::join(&mut far, &mut near, near_early, &tunnels.parts.counters.relayed_bytes).await;
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
