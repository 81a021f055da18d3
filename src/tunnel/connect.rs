//! Opens tunnels for connections of programs on this host.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use pmd_protocol::peer::frame::{Close, Open, Opened, Reason};
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::proven::{self, WrongHost};
use super::relay::NoDialBack;
use super::state::Tunnels;
use super::stream::bare;
use super::table::Side;
use super::{path, pipe, relay};
use crate::auth::tls::ALPN_TUNNEL;
use crate::base::backoff::Backoff;
use crate::base::clock::Monotonic;
use crate::base::foreign::ForeignText;
use crate::directory::Target;
use crate::directory::cluster::Registered;
use crate::link::connection::Connection;
use crate::link::dial::DialError;
use crate::link::handshake::{HandshakeError, ProvenPeer};
use crate::link::inbox::Ended;
use crate::link::local_identity::Credentials;

/// Timeout for opening a tunnel. It is shorter than that of a node, which gives up after 7 s (`net_setuptime`).
const TIMEOUT: Duration = Duration::from_secs(6);
/// Number of attempts. There is more than one because a busy daemon closes connections that it has no room for.
const ATTEMPTS: u32 = 4;
/// Timeout for one relay, which leaves time for others.
const RELAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(150), Duration::from_millis(450));

/// Why a tunnel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host is not a live member.
    #[error("its host is not a live member of the cluster")]
    NotAMember,
    /// The host cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The host cannot be dialled, and a dial-back request could not be sent.
    #[error("{0}; {crowded}", crowded = NoDialBack::Crowded)]
    Crowded(DialError),
    /// The other daemon rejected the tunnel.
    #[error("its daemon says {text}")]
    Refused {
        /// The reason, which tells whether a retry makes sense.
        reason: Reason,
        /// The other daemon's explanation.
        text: ForeignText,
    },
    /// The connection was lost before the answer arrived.
    #[error("the connection was lost before the answer arrived")]
    Broken,
    /// The attempts timed out.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The host was given by its address, and its daemon was reached at another one.
    #[error("its daemon is not at {0}")]
    NotAtAddress(IpAddr),
    /// The daemon that the registry names is not the wanted host.
    #[error(transparent)]
    WrongHost(#[from] WrongHost),
    /// This daemon is shutting down.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl OpenError {
    fn is_transient(&self) -> bool {
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

/// Why one of the paths failed.
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    NoDialBack(#[from] NoDialBack),
}

/// An open tunnel.
#[derive(Debug)]
pub struct OpenTunnel {
    /// The key and certificates of the other daemon.
    pub exit: Credentials,
    /// The connection to the other daemon.
    pub stream: TlsStream<Connection>,
    /// Bytes that were already read from the connection.
    pub early: Vec<u8>,
    /// The answer of the exit.
    pub opened: Opened,
    /// The name of the path that the tunnel takes.
    pub path: &'static str,
    /// The address of the other end, or of the relay.
    pub address: SocketAddr,
    /// The time until the handshake of the daemons was complete.
    pub handshake: Duration,
    /// The time that the exit took to answer after the handshake.
    pub answered: Duration,
}

/// Connects a program on this host to the target, and serves the tunnel until it ends. `head` was already read from the
/// program.
pub async fn connect(
    tunnels: Arc<Tunnels>,
    target: Target,
    registered: Registered,
    mut local: TcpStream,
    head: Vec<u8>,
) {
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
            tunnels.complain(|| format!("cannot open a tunnel to {:?} on {host}: {error}", target.name));
            return;
        }
    };
    counters.tunnels_opened.add();
    let OpenTunnel { mut stream, early, path, exit, .. } = tunnel;
    tracing::debug!(name = &*target.name, %host, path, "tunnel open");
    let other = [exit];
    let listed = tunnels.table().add(seat, Side::Entry(target, registered), host, path);
    tokio::select! {
        _ = pipe::join(&mut local, &mut stream, (head, early), &listed.tunnel.bytes) => {}
        () = listed.tunnel.closed() => {}
        () = tunnels.parts.identity.until_barred(&other) => {}
    }
}

/// Opens a tunnel to the registration of `target` with this creation; 0 means the current one.
///
/// # Errors
///
/// If it cannot be opened.
pub async fn open(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<OpenTunnel, OpenError> {
    let permits = tunnels.opening_permits(target.origin);
    let attempts = async {
        let mut attempt = 1;
        loop {
            // The other side accepts only so many at once, so the rest wait here.
            let permit = permits.acquire().await;
            let opened = open_once(tunnels, target, creation).await;
            drop(permit);
            match opened {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(RETRY.pause(attempt)).await;
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    };
    tokio::time::timeout(TIMEOUT, attempts).await.unwrap_or(Err(OpenError::Timeout))
}

/// Opens the tunnel over the first path that succeeds.
async fn open_once(tunnels: &Arc<Tunnels>, target: &Target, creation: u32) -> Result<OpenTunnel, OpenError> {
    let begin = Instant::now();
    let mut addresses = tunnels.parts.directory.addresses_of(&target.origin);
    addresses.retain(|address| target.pinned.is_none_or(|pinned| pinned == address.ip().to_canonical()));
    // Through a relay, it cannot be seen at which address the other daemon is.
    let with_relays = target.pinned.is_none();
    let (peer, path) = reach(tunnels, target.origin, addresses, with_relays, path::STEP_MS).await?;
    check_host(tunnels, &peer, target)?;
    if let Some(pinned) = target.pinned.filter(|pinned| *pinned != peer.address.ip().to_canonical()) {
        return Err(OpenError::NotAtAddress(pinned));
    }
    ask(peer, target, creation, path.as_str(), begin.elapsed()).await
}

/// A direct path that is being tried. If it is overtaken or given up, that counts as a failure, so that others wait less for
/// it.
struct DirectAttempt<'a> {
    tunnels: &'a Tunnels,
    origin: NodeId,
    finished: bool,
}

impl Drop for DirectAttempt<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let now_ms = Monotonic::now().as_ms();
            self.tunnels.paths().tried(now_ms, self.origin, path::Path::Direct, false);
        }
    }
}

/// Tries all paths to a daemon, at these addresses, one `step_ms` after the other. Returns it with the first that succeeds.
pub(super) async fn reach(
    tunnels: &Arc<Tunnels>,
    origin: NodeId,
    addresses: Vec<SocketAddr>,
    with_relays: bool,
    step_ms: u64,
) -> Result<(ProvenPeer, path::Path), OpenError> {
    if addresses.is_empty() {
        return Err(OpenError::NotAMember);
    }
    let own = tunnels.parts.identity.id();
    let relays: Vec<NodeId> =
        tunnels.parts.directory.relays().into_iter().filter(|hub| *hub != origin && *hub != own).collect();
    let with_relays = with_relays && !relays.is_empty();
    let plan = tunnels.paths().plan(Monotonic::now().as_ms(), origin, with_relays, step_ms);
    let mut direct_attempt = DirectAttempt { tunnels, origin, finished: false };
    let mut attempts: FuturesUnordered<_> = plan
        .into_iter()
        .map(|(path, after_ms)| {
            let (addresses, relays) = (addresses.clone(), relays.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let reached: Result<_, PathError> = match path {
                    path::Path::Direct => tunnels
                        .parts
                        .dialer
                        .reach(&addresses, Some(origin), ALPN_TUNNEL)
                        .await
                        .map_err(PathError::from),
                    path::Path::Reverse => relay::reverse(tunnels, origin).await.map_err(PathError::from),
                    path::Path::Relay => through_any(tunnels, relays, origin).await.map_err(PathError::from),
                };
                (path, reached)
            })
        })
        .collect();
    // The error of the direct path is the most informative.
    let (mut direct, mut crowded) = (None, false);
    while let Some((path, reached)) = attempts.next().await {
        tunnels.paths().tried(Monotonic::now().as_ms(), origin, path, reached.is_ok());
        direct_attempt.finished |= path == path::Path::Direct;
        match reached {
            Ok(peer) => {
                drop(attempts);
                return Ok((peer, path));
            }
            Err(PathError::Dial(error)) if path == path::Path::Direct => direct = Some(error),
            Err(error) => {
                crowded |= matches!(error, PathError::NoDialBack(NoDialBack::Crowded));
                tracing::debug!(path = path.as_str(), peer = ?origin, "path failed: {error}");
            }
        }
    }
    Err(match direct {
        None => OpenError::NotAMember,
        Some(error) if crowded => OpenError::Crowded(error),
        Some(error) => OpenError::Dial(error),
    })
}

/// Checks that the daemon at the other end is the host that was asked for. Its id was checked by whoever reached it.
fn check_host(tunnels: &Tunnels, peer: &ProvenPeer, target: &Target) -> Result<(), WrongHost> {
    let checked = proven::check(&peer.host, &target.host).map(drop);
    if let Err(wrong) = &checked {
        tunnels.parts.counters.tunnels_wrong_host.add();
        let text = format!("no tunnel to {:?} on {:?}: {wrong}", target.name, target.host);
        tunnels.parts.refusals.note(peer.address.ip(), true, "host", &text);
    }
    checked
}

/// Reaches `target` through the first relay that succeeds.
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

/// Requests the tunnel from the daemon at the other end.
async fn ask(
    peer: ProvenPeer,
    target: &Target,
    creation: u32,
    path: &'static str,
    took: Duration,
) -> Result<OpenTunnel, OpenError> {
    let ProvenPeer { mut frames, address, credentials: exit, .. } = peer;
    let begin = Instant::now();
    let open = Frame::Open(Open { kind: target.kind, name: target.name.as_ref().to_owned(), creation });
    frames.send(&open).await.map_err(|_| OpenError::Broken)?;
    let opened = loop {
        match frames.next().await {
            Some(Ok(Decoded::Frame(Frame::Opened(opened)))) => break opened,
            Some(Ok(Decoded::Frame(Frame::Close(Close { reason, text })))) => {
                return Err(OpenError::Refused { reason, text: ForeignText::new(&text) });
            }
            Some(Ok(Decoded::Skipped { .. })) => {}
            _ => return Err(OpenError::Broken),
        }
    };
    let answered = begin.elapsed();
    let (stream, early) = bare(frames);
    Ok(OpenTunnel { exit, stream, early, opened, path, address, handshake: took, answered })
}
