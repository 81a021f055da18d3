//! Ways to hosts that cannot be dialled: they dial back, or meet at a member that both can reach.
//!
//! ```text
//!   reverse   entry ── DialBack, over links ──▶ exit          relay   entry ── Relay ──▶ hub ── DialBack ──▶ exit
//!             entry ◀══ TLS, pmd-tunnel/1 ═══ exit                    entry ══ TLS ══ (hub) ══ TLS ══ exit
//! ```
//!
//! Through a relay, the TLS session and the proof of the cookie of the tunnel run inside the connections to it, end to
//! end: it passes cipher text on, and can neither read it nor take the place of one of the two.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::SinkExt;
use pmd_protocol::peer::frame::{Back, DialBack, Opened, Reason, Relay};
use pmd_protocol::peer::{Frame, NodeId};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::connect::{addresses, bare};
use super::dialback::{Verdict, likely};
use super::exit::{self, first_frame};
use super::rendezvous::Expected;
use super::{Tunnels, pipe};
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_RELAY, ALPN_TUNNEL};
use crate::cluster::driver::Sent;
use crate::link::connection::Wire;
use crate::link::dial::DialError;
use crate::link::handshake;
use crate::link::handshake::{Greeted, GreetingError, say_farewell};
use crate::link::local_identity::Me;
use crate::link::permit::Place;

/// How long somebody who was asked may take to dial.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing may come of a request before it is repeated, which has it passed on further. A link away is a few
/// milliseconds, and who dials back needs three round trips.
const AGAIN: Duration = Duration::from_millis(300);

/// A peer has sent a request to dial: it is for this daemon, or to be passed on.
pub fn asked(tunnels: &Arc<Tunnels>, peer: NodeId, request: DialBack) {
    let own = tunnels.me.id();
    let mut requests = tunnels.requests.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = requests.judge(mono_ms(tunnels), own, peer, &request);
    drop(requests);
    let counters = &tunnels.context.counters;
    match verdict {
        Verdict::Known => return,
        Verdict::TooMany => return counters.dial_requests_refused.add(),
        Verdict::Dial | Verdict::Deliver | Verdict::Spread => {}
    }
    // Whoever is asked for more than it can do leaves it: the asker tries again, or another way.
    let Ok(permit) = Arc::clone(&tunnels.dialling_back).try_acquire_owned() else {
        return counters.dial_requests_refused.add();
    };
    let tunnels = Arc::clone(tunnels);
    tokio::spawn(async move {
        let _permit = permit;
        if verdict == Verdict::Dial {
            if let Err(error) = Box::pin(dial_back(&tunnels, request)).await {
                tracing::debug!(at = ?request.at, "cannot dial back: {error}");
            }
        } else {
            pass_on(&tunnels, peer, request, verdict == Verdict::Spread).await;
        }
    });
}

/// Milliseconds since the start of the daemon.
fn mono_ms(tunnels: &Tunnels) -> u64 {
    u64::try_from(tunnels.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Passes a request of others to its target; without a link to it, to peers that may have one, if `spread`.
async fn pass_on(tunnels: &Tunnels, peer: NodeId, request: DialBack, spread: bool) {
    // Only for members: what is none has no links, and is not worth the frames of finding that out.
    let members = [request.asker, request.target, request.at];
    if !members.iter().all(|member| tunnels.directory.host_of(member).is_some()) {
        return;
    }
    let but = [peer, request.asker, request.at];
    let handed = hand_on(tunnels, request, but, spread).await;
    tunnels.context.counters.dial_requests_passed.add_many(handed.sent);
}

/// To how many peers a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Handed {
    sent: u64,
    /// Links that had no room for it.
    dropped: u64,
}

impl Handed {
    fn count(&mut self, sent: Sent) {
        match sent {
            Sent::Yes => self.sent += 1,
            Sent::NoRoom => self.dropped += 1,
            Sent::NoLink => {}
        }
    }
}

/// Sends a request over the link to its target; if that does not go, and `spread`, over others, for their peers to pass it
/// on.
async fn hand_on(tunnels: &Tunnels, request: DialBack, but: [NodeId; 3], spread: bool) -> Handed {
    let visit = tunnels.core.visit(move |running| {
        let links = running.node().links().map(|(_, link)| link.peer.id).filter(|_| spread);
        let frame = Frame::DialBack(request);
        hand(request.target, links, &but, |peer| running.send_to(peer, frame.clone()))
    });
    let handed = visit.await.unwrap_or_default();
    tunnels.context.counters.dial_requests_dropped.add_many(handed.dropped);
    handed
}

/// Sends something to `target`, or else to those of `peers` that are most likely to have a link to it, but for some.
fn hand(
    target: NodeId,
    peers: impl Iterator<Item = NodeId>,
    but: &[NodeId],
    send: impl Fn(&NodeId) -> Sent,
) -> Handed {
    let mut handed = Handed::default();
    handed.count(send(&target));
    if handed.sent == 0 {
        let others = peers.filter(|peer| *peer != target && !but.contains(peer)).collect();
        likely(target, others).iter().for_each(|peer| handed.count(send(peer)));
    }
    handed
}

/// Does what was asked for.
async fn dial_back(tunnels: &Arc<Tunnels>, request: DialBack) -> Result<(), DialError> {
    let Some(place) = Place::take(&tunnels.context) else { return Ok(()) };
    let Ok(at) = addresses(tunnels, request.at).await else { return Err(DialError::NoAddress) };
    let through_relay = request.at != request.asker;
    let alpn = if through_relay { ALPN_RELAY } else { ALPN_TUNNEL };
    let mut greeted = tunnels.dialer.greet(&at, Some(request.at), alpn).await?;
    if greeted.frames.send(&Frame::Back(Back { token: request.token })).await.is_err() {
        return Ok(());
    }
    let (greeted, path) = if through_relay {
        let Some(Frame::Opened(_)) = first_frame(&mut greeted.frames).await else { return Ok(()) };
        let (stream, early) = bare(greeted.frames);
        let address = stream.get_ref().0.address();
        let accepted =
            tokio::time::timeout(handshake::PATIENCE, accept(&tunnels.me, stream, early, request.asker));
        let accepted = accepted.await.unwrap_or(Err(GreetingError::Late));
        (accepted.map_err(|source| DialError::Greeting { address, source })?, "relay")
    } else {
        (greeted, "reverse")
    };
    // Served beside the permit: a tunnel may last for months.
    let tunnels = Arc::clone(tunnels);
    tokio::spawn(async move {
        let _place = place;
        exit::serve(greeted, tunnels, path).await;
    });
    Ok(())
}

/// Lets `asker` in, who comes through a relay.
async fn accept(
    me: &Me,
    relay: TlsStream<Wire>,
    early: Vec<u8>,
    asker: NodeId,
) -> Result<Greeted, GreetingError> {
    let tls = me.tls();
    let stream = TlsAcceptor::from(tls.server()).accept(Wire::through(relay, early)).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_TUNNEL) {
        return Err(GreetingError::Tls("it has not asked for a tunnel".into()));
    }
    let greeted = handshake::greet(TlsStream::from(stream), me, &tls, Role::Acceptor).await?;
    if greeted.hello.id == asker { Ok(greeted) } else { Err(GreetingError::Stranger) }
}

/// Why somebody who was to dial back is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCome {
    /// Nobody could be told: links have room for few messages.
    #[error("the links over which it would be asked to dial back have no room")]
    Crowded,
    /// It was asked, as far as there are links, and does not come.
    #[error("it does not dial back")]
    Silent,
}

/// Asks `target`, over whatever links there are, to dial `at`, and waits for the connection that comes of it.
///
/// # Errors
///
/// If none comes.
pub(super) async fn reverse(tunnels: &Arc<Tunnels>, target: NodeId) -> Result<Greeted, NotCome> {
    let own = tunnels.me.id();
    let mut expected = tunnels.waiting.expect(target).ok_or(NotCome::Silent)?;
    let request = DialBack { asker: own, target, at: own, token: expected.token };
    called(&mut expected, || hand_on(tunnels, request, [own; 3], true)).await
}

/// Asks for a connection until it is there, or it has taken too long.
async fn called<F: Future<Output = Handed>>(
    expected: &mut Expected<'_>,
    ask: impl Fn() -> F,
) -> Result<Greeted, NotCome> {
    let come = async {
        let mut handed = ask().await;
        if let Ok(come) = tokio::time::timeout(AGAIN, expected.come()).await {
            return come.ok_or(NotCome::Silent);
        }
        // No peer may have a link to it: theirs may.
        let again = ask().await;
        handed = Handed { sent: handed.sent + again.sent, dropped: handed.dropped + again.dropped };
        if handed.sent == 0 && handed.dropped > 0 {
            return Err(NotCome::Crowded);
        }
        expected.come().await.ok_or(NotCome::Silent)
    };
    tokio::time::timeout(PATIENCE, come).await.unwrap_or(Err(NotCome::Silent))
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
) -> Result<Greeted, DialError> {
    let Ok(at) = addresses(tunnels, hub).await else { return Err(DialError::NoAddress) };
    let mut greeted = tunnels.dialer.greet(&at, Some(hub), ALPN_RELAY).await?;
    let address = greeted.address;
    let failed = |source| DialError::Greeting { address, source };
    let sent = greeted.frames.send(&Frame::Relay(Relay { target })).await;
    sent.map_err(|error| failed(error.into()))?;
    match first_frame(&mut greeted.frames).await {
        Some(Frame::Opened(_)) => {}
        Some(Frame::Bye(bye)) => {
            return Err(failed(GreetingError::Refused { reason: bye.reason, text: bye.text }));
        }
        _ => return Err(failed(GreetingError::Closed)),
    }
    let (stream, early) = bare(greeted.frames);
    tunnels.dialer.greet_over(Wire::through(stream, early), target, ALPN_TUNNEL).await
}

/// Serves a connection to this daemon as a relay.
pub async fn serve(mut greeted: Greeted, tunnels: Arc<Tunnels>) {
    let own = tunnels.me.id();
    let target = match first_frame(&mut greeted.frames).await {
        Some(Frame::Relay(Relay { target })) => target,
        Some(Frame::Back(Back { token })) => return tunnels.waiting.take(&token, greeted),
        _ => return,
    };
    let asker = greeted.hello.id;
    let refuse = async |mut greeted: Greeted, reason, text: &str| {
        tunnels.context.counters.tunnels_refused.add();
        tunnels.complain(|| format!("does not relay from {} to {target:?}: {text}", greeted.host));
        say_farewell(&mut greeted.frames, reason, text.to_owned()).await;
    };
    if !tunnels.settings.relay {
        return refuse(greeted, Reason::Refused, "this host does not relay (relay = true)").await;
    }
    let both = [asker, target].map(|member| tunnels.directory.host_of(&member).is_some());
    if both != [true, true] || target == own {
        return refuse(greeted, Reason::Busy, "one of the two is no member, as far as this host knows").await;
    }
    // The other connection is accepted as one that is soon over.
    let place = Place::take(&tunnels.context);
    let right = (tunnels.table.seat(), tunnels.waiting.expect(target), place);
    let (Some(_seat), Some(mut expected), Some(_place)) = right else {
        tunnels.context.counters.tunnels_full.add();
        return refuse(greeted, Reason::Busy, "there is no room for more").await;
    };
    let request = DialBack { asker, target, at: own, token: expected.token };
    let ask = || hand_on(&tunnels, request, [asker; 3], true);
    let mut other = match called(&mut expected, ask).await {
        Ok(other) => other,
        Err(NotCome::Silent) => return refuse(greeted, Reason::Busy, "the other host does not come").await,
        Err(NotCome::Crowded) => {
            return refuse(greeted, Reason::Busy, "there is no room on the links to the other host").await;
        }
    };
    drop(expected);
    let opened = Frame::Opened(Opened { port: 0, took_us: 0 });
    if other.frames.send(&opened).await.is_err() || greeted.frames.send(&opened).await.is_err() {
        return;
    }
    tunnels.context.counters.relayed.add();
    let (mut near, near_early) = bare(greeted.frames);
    let (mut far, far_early) = bare(other.frames);
    // The one that was asked to come waits for the other to begin, so that it cannot have said anything yet.
    if !far_early.is_empty() {
        return;
    }
    let _ = pipe::join(&mut far, &mut near, near_early, &tunnels.context.counters.relayed_bytes).await;
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
