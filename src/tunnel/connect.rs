//! From a connection of a program on this host to a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use pmd_protocol::peer::frame::{Bye, Open, Opened, Reason};
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::entry::Target;
use super::relay::NotCome;
use super::table::Side;
use super::{Tunnels, path, pipe, relay};
use crate::auth::tls::ALPN_TUNNEL;
use crate::base::clock::now_ms;
use crate::cluster::driver::Ended;
use crate::directory::cluster::Registered;
use crate::link::connection::Wire;
use crate::link::dial::DialError;
use crate::link::handshake::{Frames, Greeted, GreetingError};
use crate::link::permit::Place;

/// How long all of it may take: a node gives up after 7 s (`net_setuptime`).
const PATIENCE: Duration = Duration::from_secs(6);
/// Attempts, because a daemon that is dialled by many at once closes what it has no room for.
const ATTEMPTS: u32 = 4;
/// How long one relay may take, so that there is time for another.
const HUB: Duration = Duration::from_secs(2);
/// How long before the second attempt; twice as long before the third.
const AGAIN: Duration = Duration::from_millis(150);
/// From when on the kernel looks whether the other host is still there, how often, and how many times in vain.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host is not there any more.
    #[error("its host is no live member of the cluster")]
    NotAMember,
    /// The host cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The host cannot be dialled, nor asked to dial back.
    #[error("{0}; {crowded}", crowded = NotCome::Crowded)]
    Crowded(DialError),
    /// The other daemon has said no.
    #[error("{text}")]
    Refused {
        /// Whether to try again.
        reason: Reason,
        /// What it said.
        text: String,
    },
    /// The connection was lost before there was an answer.
    #[error("the connection was lost before there was an answer")]
    Broken,
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// This daemon is about to end.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl OpenError {
    fn is_passing(&self) -> bool {
        match self {
            OpenError::Refused { reason, .. } => *reason == Reason::Busy,
            OpenError::Broken => true,
            OpenError::Dial(DialError::Greeting { source, .. }) => {
                matches!(source, GreetingError::Io(_) | GreetingError::Closed)
            }
            _ => false,
        }
    }
}

/// Why one of the ways does not lead there.
#[derive(Debug, thiserror::Error)]
enum WayError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    NotCome(#[from] NotCome),
}

/// A tunnel that is open.
#[derive(Debug)]
pub struct Way {
    /// The connection to the other daemon.
    pub stream: TlsStream<Wire>,
    /// What was read from it already.
    pub early: Vec<u8>,
    /// What the exit said.
    pub opened: Opened,
    /// How it gets there.
    pub path: &'static str,
    /// The address of the other end, or of the relay.
    pub address: SocketAddr,
    /// How long it took until both daemons had proven who they are.
    pub greeted: Duration,
    /// How long the exit took to answer after that.
    pub answered: Duration,
}

/// Takes a connection to where it wants to go, and serves it until it ends.
pub async fn carry(tunnels: Arc<Tunnels>, target: Target, registered: Registered, mut local: TcpStream) {
    let context = &tunnels.context;
    let places = (Place::take(context), Place::take(context));
    let ((Some(_local), Some(_remote)), Some(seat)) = (places, tunnels.table.seat()) else {
        context.counters.tunnels_full.add();
        tunnels.complain(|| format!("no room for a tunnel to {:?}", target.name));
        return;
    };
    let host = tunnels.directory.host_of(&target.origin).unwrap_or_default();
    let _ = local.set_nodelay(true);
    let way = match Box::pin(open(&tunnels, &target, registered.creation)).await {
        Ok(way) => way,
        Err(error) => {
            context.counters.tunnels_failed.add();
            tunnels.complain(|| format!("no tunnel to {:?} on {host}: {error}", target.name));
            return;
        }
    };
    context.counters.tunnels_opened.add();
    let Way { mut stream, early, path, .. } = way;
    tracing::debug!(name = &*target.name, %host, path, "tunnel open");
    let listed = tunnels.table.add(seat, Side::Entry(target, registered), host, path);
    tokio::select! {
        _ = pipe::join(&mut local, &mut stream, early, &listed.tunnel.bytes) => {}
        () = listed.tunnel.closed() => {}
    }
}

/// Opens a tunnel to a life of `target`.
///
/// # Errors
///
/// If it does not come about.
pub async fn open(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<Way, OpenError> {
    let turns = tunnels.turns(target.origin);
    let attempts = async {
        let mut attempt = 1;
        loop {
            // Fewer at once than the other side lets in; the others wait for their turn.
            let permit = turns.acquire().await;
            let opened = open_once(tunnels, target, creation).await;
            drop(permit);
            match opened {
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    tokio::time::sleep(AGAIN * attempt).await;
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.unwrap_or(Err(OpenError::Late))
}

/// Tries all ways to the host, and asks whoever is reached first for the tunnel.
async fn open_once(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<Way, OpenError> {
    let begin = Instant::now();
    let origin = target.origin;
    let addresses = addresses(tunnels, origin).await?;
    let own = tunnels.me.id();
    let relays: Vec<NodeId> =
        tunnels.directory.relays().into_iter().filter(|hub| *hub != origin && *hub != own).collect();
    let plan = tunnels.paths().plan(now_ms(), origin, !relays.is_empty());
    let mut ways: FuturesUnordered<_> = plan
        .into_iter()
        .map(|(way, after_ms)| {
            let (addresses, relays) = (addresses.clone(), relays.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let reached: Result<_, WayError> = match way {
                    path::Way::Direct => tunnels
                        .dialer
                        .greet(&addresses, Some(origin), ALPN_TUNNEL)
                        .await
                        .map_err(WayError::from),
                    path::Way::Reverse => relay::reverse(tunnels, origin).await.map_err(WayError::from),
                    path::Way::Relay => through_any(tunnels, relays, origin).await.map_err(WayError::from),
                };
                (way, reached)
            })
        })
        .collect();
    // What was wrong with the direct way says most.
    let (mut direct, mut crowded) = (None, false);
    while let Some((way, reached)) = ways.next().await {
        tunnels.paths().tried(now_ms(), origin, way, reached.is_ok());
        match reached {
            Ok(greeted) => {
                drop(ways);
                if way != path::Way::Direct && direct.is_none() {
                    // It was overtaken, which is as good as a failure to who has to wait for it.
                    tunnels.paths().tried(now_ms(), origin, path::Way::Direct, false);
                }
                return ask(greeted, target, creation, way.as_str(), begin.elapsed()).await;
            }
            Err(WayError::Dial(error)) if way == path::Way::Direct => direct = Some(error),
            Err(error) => {
                crowded |= matches!(error, WayError::NotCome(NotCome::Crowded));
                tracing::debug!(way = way.as_str(), peer = ?origin, "no way: {error}");
            }
        }
    }
    Err(match direct {
        None => OpenError::NotAMember,
        Some(error) if crowded => OpenError::Crowded(error),
        Some(error) => OpenError::Dial(error),
    })
}

/// Goes through the first relay that leads there.
async fn through_any(
    tunnels: &Arc<Tunnels>,
    relays: Vec<NodeId>,
    target: NodeId,
) -> Result<Greeted, DialError> {
    let visit = tunnels.core.visit(move |running| {
        let rtt_us = |hub: NodeId| {
            running.node().links().find(|(_, link)| link.peer.id == hub).and_then(|(_, link)| link.rtt_us)
        };
        relays.into_iter().map(|id| path::Hub { id, rtt_us: rtt_us(id) }).collect::<Vec<_>>()
    });
    let hubs = visit.await.unwrap_or_default();
    let hubs = tunnels.paths().order(now_ms(), hubs);
    let mut last = DialError::NoAddress;
    for hub in hubs {
        let reached = tokio::time::timeout(HUB, relay::through(tunnels, hub.id, target)).await;
        tunnels.paths().tried_hub(now_ms(), hub.id, matches!(reached, Ok(Ok(_))));
        match reached {
            Ok(Ok(greeted)) => return Ok(greeted),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Where a member says that it can be reached.
pub(super) async fn addresses(tunnels: &Tunnels, origin: NodeId) -> Result<Vec<SocketAddr>, OpenError> {
    let visit = tunnels.core.visit(move |running| {
        let mut members = running.node().members();
        members.find(|(identity, _)| identity.id == origin).map(|(identity, _)| identity.addresses.clone())
    });
    visit.await?.ok_or(OpenError::NotAMember)
}

/// Asks the daemon at the other end for the tunnel.
async fn ask(
    greeted: Greeted,
    target: &Target,
    creation: u32,
    path: &'static str,
    took: Duration,
) -> Result<Way, OpenError> {
    let Greeted { mut frames, address, .. } = greeted;
    let begin = Instant::now();
    let open = Frame::Open(Open { kind: target.kind, name: target.name.as_ref().to_owned(), creation });
    frames.send(&open).await.map_err(|_| OpenError::Broken)?;
    let opened = loop {
        match frames.next().await {
            Some(Ok(Decoded::Frame(Frame::Opened(opened)))) => break opened,
            Some(Ok(Decoded::Frame(Frame::Bye(Bye { reason, text })))) => {
                return Err(OpenError::Refused { reason, text });
            }
            Some(Ok(Decoded::Skipped { .. })) => {}
            _ => return Err(OpenError::Broken),
        }
    };
    let answered = begin.elapsed();
    let (stream, early) = bare(frames);
    Ok(Way { stream, early, opened, path, address, greeted: took, answered })
}

/// The connection under the frames, and what was read of it behind the last of them.
pub(super) fn bare(frames: Frames) -> (TlsStream<Wire>, Vec<u8>) {
    let parts = frames.into_parts();
    keep_alive(&parts.io);
    (parts.io, parts.read_buf.to_vec())
}

/// An idle tunnel sends nothing, so that only the kernel can find out that the other host is gone.
fn keep_alive(stream: &TlsStream<Wire>) {
    let (idle, interval, count) = KEEPALIVE;
    let Some(socket) = stream.get_ref().0.socket() else { return };
    let _ = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, idle))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, interval))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, count));
}
