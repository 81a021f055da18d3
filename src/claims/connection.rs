//! Connections between a member and a voter: the member dials, asks, and is answered on the same connection. Votes go from
//! the voter that dials to the one that is dialled.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use pmd_protocol::limits::MAX_CLAIMS_FRAME;
use pmd_protocol::peer::claims::Frame;
use rustix::net::sockopt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tokio_util::codec::{Framed, FramedParts, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::handle::{Accepted, Claims, Command};
use crate::auth::tls::ALPN_CLAIMS;
use crate::base::backoff::Backoff;
use crate::directory::cluster::ClusterDirectory;
use crate::link::connection::Connection;
use crate::link::dial::Dialer;
use crate::link::handshake::ProvenPeer;

/// Frames that wait for a connection. Those beyond are dropped, as by a network: everything is asked again.
const QUEUE: usize = 1_024;
/// A peer that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(5);
/// TCP keepalive: idle time, interval and number of unanswered probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(2), Duration::from_secs(1), 3);
/// A connection that lasted this long was a good one.
const LASTING: Duration = Duration::from_secs(2);
/// The pause between dials.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

type Frames = Framed<TlsStream<Connection>, LengthDelimitedCodec>;

/// Serves a connection that a member has opened.
pub(super) async fn serve_accepted(peer: ProvenPeer, claims: &Claims) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let close = CancellationToken::new();
    let credentials = [peer.credentials.clone()];
    let host = peer.host.as_str().to_lowercase();
    let accepted = Accepted { id: peer.hello.id, host, frames: sender, close: close.clone() };
    let serving =
        serve(framed(peer), receiver, claims, |frame| Some(Command::Arrived(accepted.clone(), frame)));
    tokio::select! {
        () = serving => {}
        () = close.cancelled() => {}
        () = claims.until_barred(&credentials) => {}
    }
}

/// Keeps a connection to a voter while it is wanted, and tells the driver of it.
pub(super) async fn keep(
    voter: u8,
    host: String,
    mut wanted: watch::Receiver<bool>,
    directory: Arc<ClusterDirectory>,
    dialer: Dialer,
    claims: Arc<Claims>,
) {
    let mut attempt = 0;
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let reached = async {
            let (id, _) = directory.on_host(&host).into_iter().next()?;
            let peer = dialer.reach(&directory.addresses_of(&id), Some(id), ALPN_CLAIMS).await;
            // What stands between two members is logged by their link.
            let peer =
                peer.inspect_err(|error| tracing::debug!(%host, "cannot reach a voter: {error}")).ok()?;
            (peer.host.as_str().to_lowercase() == host).then_some(peer)
        };
        if let Some(peer) = reached.await {
            let since = Instant::now();
            let (sender, receiver) = mpsc::channel(QUEUE);
            if !claims.send(Command::Connected(voter, sender)).await {
                return;
            }
            let credentials = [peer.credentials.clone()];
            let serving = serve(framed(peer), receiver, &claims, |frame| match frame {
                Frame::Reply(reply) => Some(Command::Replied(reply)),
                _ => None,
            });
            tokio::select! {
                () = serving => {}
                () = claims.until_barred(&credentials) => {}
                ended = wanted.wait_for(|wanted| !*wanted) => {
                    if ended.is_err() {
                        return;
                    }
                }
            }
            if !claims.send(Command::Disconnected(voter)).await {
                return;
            }
            // A peer that closes at once is not dialled again and again without a pause.
            if since.elapsed() >= LASTING {
                attempt = 0;
            }
        }
        attempt += 1;
        tokio::time::sleep(RETRY.pause(attempt)).await;
    }
}

fn framed(peer: ProvenPeer) -> Frames {
    let parts = peer.frames.into_parts();
    let (idle, interval, count) = KEEPALIVE;
    if let Some(socket) = parts.io.get_ref().0.socket() {
        // Without these, a peer that is gone is noticed when the leader is missed.
        let _ = sockopt::set_socket_keepalive(socket, true)
            .and_then(|()| sockopt::set_tcp_keepidle(socket, idle))
            .and_then(|()| sockopt::set_tcp_keepintvl(socket, interval))
            .and_then(|()| sockopt::set_tcp_keepcnt(socket, count))
            .and_then(|()| sockopt::set_tcp_user_timeout(socket, 5_000));
    }
    let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_CLAIMS_FRAME).new_codec();
    let mut framed = FramedParts::new::<Bytes>(parts.io, codec);
    framed.read_buf = parts.read_buf;
    Framed::from_parts(framed)
}

/// Sends and receives frames until the connection ends, or a frame is not a command for the driver.
async fn serve(
    mut frames: Frames,
    mut output: mpsc::Receiver<Frame>,
    claims: &Claims,
    command: impl Fn(Frame) -> Option<Command>,
) {
    loop {
        tokio::select! {
            frame = output.recv() => {
                let Some(frame) = frame else { return };
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                let sent = tokio::time::timeout(STALLED, frames.send(Bytes::from(bytes))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            read = frames.next() => {
                let Some(Ok(bytes)) = read else { return };
                let Ok(frame) = Frame::decode(&bytes) else { return };
                let Some(command) = command(frame) else { return };
                if !claims.send(command).await {
                    return;
                }
            }
        }
    }
}
