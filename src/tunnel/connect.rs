//! From a connection of a program on this host to a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use pmd_protocol::peer::frame::{Close, Open, Opened, Reason};
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::relay::NotCome;
use super::state::Tunnels;
use super::stream::bare;
use super::table::Side;
use super::{path, pipe, relay};
use crate::auth::tls::ALPN_TUNNEL;
use crate::base::backoff::Backoff;
use crate::base::clock::Monotonic;
use crate::directory::Target;
use crate::directory::cluster::Registered;
use crate::link::connection::Connection;
use crate::link::dial::DialError;
use crate::link::handshake::{HandshakeError, ProvenPeer};
use crate::link::inbox::Ended;

/// Time for all of it: a node gives up after 7 s (`net_setuptime`).
const TIMEOUT: Duration = Duration::from_secs(6);
/// Attempts, because a daemon that is dialled by many at once closes what it has no room for.
const ATTEMPTS: u32 = 4;
/// Time for one relay, so that there is some left for the next.
const RELAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(150), Duration::from_millis(450));

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
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// This daemon is shutting down.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl OpenError {
    fn is_passing(&self) -> bool {
        match self {
            OpenError::Refused { reason, .. } => *reason == Reason::Busy,
            OpenError::Broken => true,
            OpenError::Dial(DialError::Handshake { source, .. }) => {
                matches!(source, HandshakeError::Io(_) | HandshakeError::Closed)
            }
            _ => false,
        }
    }
}

/// Why one of the paths does not lead there.
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    NotCome(#[from] NotCome),
}

/// A tunnel that is open.
#[derive(Debug)]
pub struct OpenTunnel {
    /// The connection to the other daemon.
    pub stream: TlsStream<Connection>,
    /// What was read from it already.
    pub early: Vec<u8>,
    /// What the exit said.
    pub opened: Opened,
    /// The path that it takes.
    pub path: &'static str,
    /// The address of the other end, or of the relay.
    pub address: SocketAddr,
    /// How long it took until both daemons had completed the handshake.
    pub handshake: Duration,
    /// How long the exit took to answer after that.
    pub answered: Duration,
}

/// Connects a program on this host to the target, and serves the tunnel until it ends.
pub async fn connect(tunnels: Arc<Tunnels>, target: Target, registered: Registered, mut local: TcpStream) {
    let counters = &tunnels.parts.counters;
    let permits = (tunnels.permit(), tunnels.permit());
    let ((Some(_local), Some(_remote)), Some(seat)) = (permits, tunnels.table().seat()) else {
        counters.tunnels_full.add();
        tunnels.complain(|| format!("no room for a tunnel to {:?}", target.name));
        return;
    };
    let host = tunnels.parts.directory.host_of(&target.origin).unwrap_or_default();
    let _ = local.set_nodelay(true);
    let tunnel = match Box::pin(open(&tunnels, &target, registered.creation)).await {
        Ok(tunnel) => tunnel,
        Err(error) => {
            counters.tunnels_failed.add();
            tunnels.complain(|| format!("no tunnel to {:?} on {host}: {error}", target.name));
            return;
        }
    };
    counters.tunnels_opened.add();
    let OpenTunnel { mut stream, early, path, .. } = tunnel;
    tracing::debug!(name = &*target.name, %host, path, "tunnel open");
    let listed = tunnels.table().add(seat, Side::Entry(target, registered), host, path);
    tokio::select! {
        _ = pipe::join(&mut local, &mut stream, early, &listed.tunnel.bytes) => {}
        () = listed.tunnel.closed() => {}
    }
}

/// Opens a tunnel to the registration of `target` with this creation; 0 means the present one.
///
/// # Errors
///
/// If it cannot be opened.
pub async fn open(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<OpenTunnel, OpenError> {
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
                    tokio::time::sleep(RETRY.pause(attempt)).await;
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    };
    tokio::time::timeout(TIMEOUT, attempts).await.unwrap_or(Err(OpenError::Timeout))
}

/// Tries all paths to the host, and asks for the tunnel over the first that leads there.
async fn open_once(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<OpenTunnel, OpenError> {
    let begin = Instant::now();
    let origin = target.origin;
    let addresses = tunnels.parts.directory.addresses_of(&origin);
    if addresses.is_empty() {
        return Err(OpenError::NotAMember);
    }
    let own = tunnels.parts.identity.id();
    let relays: Vec<NodeId> =
        tunnels.parts.directory.relays().into_iter().filter(|hub| *hub != origin && *hub != own).collect();
    let plan = tunnels.paths().plan(Monotonic::now().as_ms(), origin, !relays.is_empty());
    let mut ways: FuturesUnordered<_> = plan
        .into_iter()
        .map(|(way, after_ms)| {
            let (addresses, relays) = (addresses.clone(), relays.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let reached: Result<_, PathError> = match way {
                    path::Way::Direct => tunnels
                        .parts
                        .dialer
                        .reach(&addresses, Some(origin), ALPN_TUNNEL)
                        .await
                        .map_err(PathError::from),
                    path::Way::Reverse => relay::reverse(tunnels, origin).await.map_err(PathError::from),
                    path::Way::Relay => through_any(tunnels, relays, origin).await.map_err(PathError::from),
                };
                (way, reached)
            })
        })
        .collect();
    // The error of the direct path says most.
    let (mut direct, mut crowded) = (None, false);
    while let Some((way, reached)) = ways.next().await {
        tunnels.paths().tried(Monotonic::now().as_ms(), origin, way, reached.is_ok());
        match reached {
            Ok(peer) => {
                drop(ways);
                if way != path::Way::Direct && direct.is_none() {
                    // It was overtaken, which is as good as a failure for whoever has to wait for it.
                    tunnels.paths().tried(Monotonic::now().as_ms(), origin, path::Way::Direct, false);
                }
                return ask(peer, target, creation, way.as_str(), begin.elapsed()).await;
            }
            Err(PathError::Dial(error)) if way == path::Way::Direct => direct = Some(error),
            Err(error) => {
                crowded |= matches!(error, PathError::NotCome(NotCome::Crowded));
                tracing::debug!(path = way.as_str(), peer = ?origin, "no path: {error}");
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
) -> Result<ProvenPeer, DialError> {
    let view = tunnels.parts.core.view().await.ok();
    let rtt_us = |hub: NodeId| view.as_ref()?.links_to(hub).next()?.heartbeat_rtt_us;
    let hubs = relays.into_iter().map(|id| path::Hub { id, rtt_us: rtt_us(id) }).collect();
    let hubs = tunnels.paths().order(Monotonic::now().as_ms(), hubs);
    let mut last = DialError::NoAddress;
    for hub in hubs {
        let reached = tokio::time::timeout(RELAY_TIMEOUT, relay::through(tunnels, hub.id, target)).await;
        tunnels.paths().tried_hub(Monotonic::now().as_ms(), hub.id, matches!(reached, Ok(Ok(_))));
        match reached {
            Ok(Ok(peer)) => return Ok(peer),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Asks the daemon at the other end for the tunnel.
async fn ask(
    peer: ProvenPeer,
    target: &Target,
    creation: u32,
    path: &'static str,
    took: Duration,
) -> Result<OpenTunnel, OpenError> {
    let ProvenPeer { mut frames, address, .. } = peer;
    let begin = Instant::now();
    let open = Frame::Open(Open { kind: target.kind, name: target.name.as_ref().to_owned(), creation });
    frames.send(&open).await.map_err(|_| OpenError::Broken)?;
    let opened = loop {
        match frames.next().await {
            Some(Ok(Decoded::Frame(Frame::Opened(opened)))) => break opened,
            Some(Ok(Decoded::Frame(Frame::Close(Close { reason, text })))) => {
                return Err(OpenError::Refused { reason, text });
            }
            Some(Ok(Decoded::Skipped { .. })) => {}
            _ => return Err(OpenError::Broken),
        }
    };
    let answered = begin.elapsed();
    let (stream, early) = bare(frames);
    Ok(OpenTunnel { stream, early, opened, path, address, handshake: took, answered })
}
