//! A standing link: frames of the peer go to the core, frames of the core to the peer.
//!
//! Neither side waits for the other: what the core has for this link is made when the socket can take it, and a peer
//! that sends faster than the core works is not read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures_util::{SinkExt, Stream, StreamExt};
use pmd_core::node::LinkId;
use pmd_protocol::peer::codec::{PeerCodec, PeerError};
use pmd_protocol::peer::frame::{Bye, Reason};
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{Encoder, FramedRead, FramedWrite};

use super::handshake::Greeted;
use super::peer_clock::{PeerClock, Teller};
use crate::cluster::driver::{Core, Input, LinkEnd};
use crate::daemon::Context;
use crate::tunnel::relay;

/// Frames that were made for a link and are not written: enough to keep the socket busy while more are made.
pub const OUTPUT: usize = 4;
/// Bytes that there is room for to begin with, for as long as the link is: a heartbeat and a few changes. It grows with what the
/// peer sends.
const READ_BUFFER: usize = 1024;
/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;

/// Where the core leaves frames for a link, and learns whether there is room.
#[derive(Debug)]
pub struct Output {
    frames: mpsc::Sender<Frame>,
    /// Set by the core when it has more than there is room for.
    waiting: Arc<AtomicBool>,
}

impl Output {
    /// Whether there is room for a frame. If not, the core is told when there is.
    pub fn has_room(&self) -> bool {
        if self.frames.capacity() > 0 {
            return true;
        }
        self.waiting.store(true, Ordering::Release);
        // The writer may have taken all of it just before it could see the mark.
        self.frames.capacity() > 0
    }

    /// Leaves a frame; it is dropped if there is no room or no link any more.
    pub fn send(&self, frame: Frame) {
        let _ = self.frames.try_send(frame);
    }
}

/// Serves a link until one side ends it.
pub async fn serve(greeted: Greeted, initiated: bool, core: Core, context: Arc<Context>) {
    let (frames, output) = mpsc::channel(OUTPUT);
    let (close, closed) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let waiting = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(PeerClock::new(Arc::clone(&greeted.traffic)));
    let end = LinkEnd {
        peer: greeted.identity(),
        host: greeted.host.clone(),
        address: greeted.address,
        initiated,
        traffic: Arc::clone(&greeted.traffic),
        clock: Arc::clone(&clock),
        output: Output { frames, waiting: Arc::clone(&waiting) },
        close,
    };
    if core.send(Input::LinkUp(Box::new(end), tell)).await.is_err() {
        return;
    }
    let Ok(link) = told.await else { return };
    let peer = greeted.hello.id;
    let Greeted { frames, .. } = greeted;
    let parts = frames.into_parts();
    let (reading, mut writing) = tokio::io::split(parts.io);
    let mut reading = FramedRead::with_capacity(reading, parts.codec, READ_BUFFER);
    // What was read behind the last frame of the greeting belongs to the link.
    reading.read_buffer_mut().extend_from_slice(&parts.read_buf);
    drop(parts.read_buf);
    let farewell = tokio::select! {
        farewell = read(&mut reading, link, peer, &clock, &core, &context) => Some(farewell),
        reason = write(&mut writing, output, closed, &waiting, link, &core, &context) => {
            if let Some(reason) = reason {
                let _ = tokio::time::timeout(super::handshake::PATIENCE, async {
                    part(&mut writing, reason).await;
                    // What the peer has under way, until it has heard: to close on unread input resets the connection,
                    // and a reset would overtake the farewell.
                    while let Some(Ok(_)) = reading.next().await {}
                })
                .await;
                // The core has closed it and knows.
                None
            } else {
                Some(None)
            }
        }
    };
    if let Some(farewell) = farewell {
        let _ = core.send(Input::LinkDown { link, farewell }).await;
    }
}

/// Reads until the peer ends the link; its farewell, if there was one.
async fn read(
    frames: &mut (impl Stream<Item = Result<Decoded, PeerError>> + Unpin),
    link: LinkId,
    peer: NodeId,
    clock: &PeerClock,
    core: &Core,
    context: &Context,
) -> Option<Reason> {
    let counters = &context.counters;
    loop {
        match frames.next().await? {
            Ok(Decoded::Frame(Frame::Bye(bye))) => return Some(bye.reason),
            // None of the core's business.
            Ok(Decoded::Frame(Frame::DialBack(request))) => {
                counters.frames_received.add();
                if let Some(cluster) = context.cluster.get() {
                    relay::asked(cluster.tunnels(), peer, request);
                }
            }
            Ok(Decoded::Frame(Frame::Clock(said))) => {
                counters.frames_received.add();
                clock.hear(said);
            }
            Ok(Decoded::Frame(frame)) => {
                counters.frames_received.add();
                core.send(Input::Frame { link, frame }).await.ok()?;
            }
            Ok(Decoded::Skipped { kind, why }) => {
                counters.frames_skipped.add();
                tracing::debug!(kind, ?why, "skipped a frame");
            }
            Err(PeerError::Frame(error)) => {
                counters.violations.add();
                tracing::warn!(?peer, "a peer has broken the protocol, its link is closed: {error}");
                return None;
            }
            Err(_) => return None,
        }
    }
}

/// Writes what the core has until it closes the link, for the reason that is returned; none if the socket fails.
async fn write(
    socket: &mut (impl AsyncWrite + Unpin),
    mut output: mpsc::Receiver<Frame>,
    mut closed: oneshot::Receiver<Reason>,
    waiting: &AtomicBool,
    link: LinkId,
    core: &Core,
    context: &Context,
) -> Option<Reason> {
    let mut codec = PeerCodec::default();
    let mut bytes = BytesMut::new();
    let mut reason = None;
    let mut clock = Teller::default();
    loop {
        tokio::select! {
            biased;
            frame = output.recv() => match frame {
                Some(frame) => encode(&mut codec, &frame, &mut bytes, context),
                // The core has let go of the link, and says why: the peer has to hear it, or it takes the end for a crash.
                None => reason = Some((&mut closed).await.unwrap_or(Reason::Leaving)),
            },
            why = &mut closed, if reason.is_none() => {
                // What was said before the end is still to be heard.
                reason = Some(why.unwrap_or(Reason::Leaving));
            }
        }
        while bytes.len() < BATCH
            && let Ok(frame) = output.try_recv()
        {
            encode(&mut codec, &frame, &mut bytes, context);
        }
        if let Some(clock) = clock.due().filter(|_| reason.is_none()) {
            encode(&mut codec, &clock, &mut bytes, context);
        }
        if !bytes.is_empty() {
            socket.write_all(&bytes).await.ok()?;
            socket.flush().await.ok()?;
            bytes.clear();
        }
        if reason.is_some() && output.is_empty() {
            return reason;
        }
        if waiting.swap(false, Ordering::AcqRel) {
            core.send(Input::Writable(link)).await.ok()?;
        }
    }
}

/// Appends a frame, and counts it if it has news of the registry.
fn encode(codec: &mut PeerCodec, frame: &Frame, bytes: &mut BytesMut, context: &Context) {
    let before = bytes.len();
    let _ = codec.encode(frame, bytes);
    if matches!(frame, Frame::Update(_) | Frame::Updates(_)) {
        context.counters.deltas_sent.add();
        context.counters.delta_sent_bytes.add_many((bytes.len() - before) as u64);
    }
}

async fn part(socket: &mut (impl AsyncWrite + Unpin), reason: Reason) {
    let mut sink = FramedWrite::new(socket, PeerCodec::default());
    let bye = Frame::Bye(Bye { reason, text: String::new() });
    let _ = sink.send(&bye).await;
    let _ = SinkExt::<&Frame>::close(&mut sink).await;
}
