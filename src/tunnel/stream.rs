//! Helpers for both ends of a tunnel: read the first frame of a proven peer, and switch from frames to raw bytes.

use std::time::Duration;

use futures_util::StreamExt;
use pmd_protocol::peer::{Decoded, Frame};
use rustix::net::sockopt;
use tokio_rustls::TlsStream;

use crate::link::connection::Connection;
use crate::link::handshake::Frames;

/// Timeout for the first frame of the peer.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// TCP keepalive: idle time, interval and number of unanswered probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// The first frame of the peer, or `None` if it does not arrive in time.
pub(super) async fn first_frame(frames: &mut Frames) -> Option<Frame> {
    let read = async {
        loop {
            match frames.next().await? {
                Ok(Decoded::Frame(frame)) => return Some(frame),
                Ok(Decoded::Skipped { .. }) => {}
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(FIRST_FRAME_TIMEOUT, read).await.ok().flatten()
}

/// The connection under the frames, and the bytes that were read after the last frame.
pub(super) fn bare(frames: Frames) -> (TlsStream<Connection>, Vec<u8>) {
    let parts = frames.into_parts();
    keep_alive(&parts.io);
    (parts.io, parts.read_buf.to_vec())
}

/// Enables TCP keepalive: an idle tunnel sends nothing, so only the kernel can detect that the other host is gone.
fn keep_alive(stream: &TlsStream<Connection>) {
    let (idle, interval, count) = KEEPALIVE;
    let Some(socket) = stream.get_ref().0.socket() else { return };
    let _ = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, idle))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, interval))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, count));
}
