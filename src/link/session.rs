//! A link: passes the peer's frames to the core and the core's frames to the peer.
//!
//! The core never waits for a link: it produces a frame only when the link has room. A peer that sends faster than the
//! core works is read more slowly, and the link of a peer that stops reading is closed after a timeout.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt, Stream, StreamExt};
use pmd_core::node::LinkId;
use pmd_protocol::peer::codec::{PeerCodec, PeerError};
use pmd_protocol::peer::frame::{self, Answer, Ask, DialBack, Reason};
use pmd_protocol::peer::{Decoded, Frame, NodeId, RevocationList, Rotation};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::codec::{Encoder, FramedRead, FramedWrite};

use super::handshake::ProvenPeer;
use super::inbox::{Close, CoreInbox, LinkEnd, LinkMessage};
use super::link_proof::LinkProof;
use super::link_questions::{LinkQuestions, UNDER_WAY};
use super::output::LinkOutput;
use super::peer_clock::{ClockAnnouncer, PeerClock};
use super::protocol::{Protocol, Serving};
use super::shares::{Shares, Use};
use crate::auth::tls::ALPN_LINK;
use crate::base::permit::Permit;
use crate::base::stats::Counters;

/// Frames queued for a link: enough to keep the socket busy while the core produces more.
pub const OUTPUT: usize = 4;
/// Initial size of the read buffer, which exists as long as the link: room for a heartbeat and a few changes. It grows
/// as needed.
const READ_BUFFER: usize = 1024;
/// Maximum number of bytes per write.
const BATCH: usize = 64 * 1024;
/// A link with pending data is closed if its peer's TCP window stays closed for this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to write the closing frame and for the peer to close in return.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to dial back, received over a peer's link.
#[derive(Debug)]
pub struct DialRequest {
    /// The peer.
    pub peer: NodeId,
    /// The request.
    pub request: DialBack,
}

/// A question about a registration, or an answer, received over a peer's link.
#[derive(Debug)]
pub enum Heard {
    /// The peer asks; the answer goes back over the link, past the core. The permit is the question's share of the queue.
    Ask(NodeId, Ask, mpsc::Sender<Answer>, OwnedSemaphorePermit),
    /// The peer answers a question with this number that it was asked over this link.
    Answer(NodeId, Answer),
}

/// Serves links.
#[derive(Debug, Clone)]
pub struct Links {
    inbox: CoreInbox,
    counters: Arc<Counters>,
    shares: Arc<Shares>,
    dial_requests: mpsc::Sender<DialRequest>,
    rotations: mpsc::Sender<HeardRotation>,
    revocations: mpsc::Sender<HeardList>,
    questions: mpsc::Sender<Heard>,
}

/// A list of revoked certificates, received over a peer's link.
#[derive(Debug)]
pub struct HeardList {
    /// The peer.
    pub peer: NodeId,
    /// The link.
    pub link: LinkId,
    /// The list in DER.
    pub der: Vec<u8>,
}

/// A rotation of the cluster secret, received over a peer's link.
#[derive(Debug)]
pub struct HeardRotation {
    /// The peer.
    pub peer: NodeId,
    /// The rotation.
    pub rotation: Rotation,
}

impl Links {
    /// Creates links whose frames go to the core, except for requests to dial back, rotations of the secret, lists of
    /// revoked certificates, and questions about registrations. `shares` limits those that peers open.
    #[must_use]
    pub fn new(
        inbox: CoreInbox,
        counters: Arc<Counters>,
        shares: Arc<Shares>,
        dial_requests: mpsc::Sender<DialRequest>,
        rotations: mpsc::Sender<HeardRotation>,
        revocations: mpsc::Sender<HeardList>,
        questions: mpsc::Sender<Heard>,
    ) -> Links {
        Links { inbox, counters, shares, dial_requests, rotations, revocations, questions }
    }

    /// The limits of the connections that peers open.
    #[must_use]
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// The core's inbox.
    #[must_use]
    pub fn inbox(&self) -> &CoreInbox {
        &self.inbox
    }

    /// The counters for links.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a link until one side closes it; `initiated` is whether this daemon dialled.
    pub async fn serve(self, peer: ProvenPeer, initiated: bool) {
        let (frames, output) = mpsc::channel(OUTPUT);
        let (answers, answering) = mpsc::channel(UNDER_WAY);
        let questions = LinkQuestions::default();
        let (close, closed) = oneshot::channel();
        let (number, numbered) = oneshot::channel();
        let waiting = Arc::new(AtomicBool::new(false));
        let clock = Arc::new(PeerClock::new(Arc::clone(&peer.traffic)));
        let identity = peer.identity();
        let proof = Arc::new(peer.proof);
        let end = LinkEnd {
            peer: identity,
            host: peer.host.clone(),
            address: peer.address,
            initiated,
            departures: peer.departures,
            credentials: peer.credentials,
            traffic: Arc::clone(&peer.traffic),
            proof: Arc::clone(&proof),
            clock: Arc::clone(&clock),
            output: LinkOutput::new(frames, Arc::clone(&waiting)),
            close,
        };
        if self.inbox.send(LinkMessage::Up(Box::new(end), number)).await.is_err() {
            return;
        }
        let Ok(link) = numbered.await else { return };
        let id = peer.hello.id;
        let parts = peer.frames.into_parts();
        let (reading, writing) = tokio::io::split(parts.io);
        let mut writing = TimeoutWriter::new(writing);
        writing.set_timeout(Some(WRITE_TIMEOUT));
        let mut writing = Box::pin(writing);
        // Bytes after the last handshake frame belong to the link. They are read like those that follow: a `FramedRead`
        // does not look into a buffer that it is given until more bytes have arrived.
        let early = Cursor::new(parts.read_buf.freeze());
        let mut reading = FramedRead::with_capacity(early.chain(reading), parts.codec, READ_BUFFER);
        let ended = tokio::select! {
            reason = self.read(&mut reading, link, id, (&clock, &proof), (&answers, &questions)) => Some(reason),
            reason = self.write(&mut writing, (output, answering, &questions), closed, &waiting, link) => {
                if let Some(reason) = reason {
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, async {
                        send_close(&mut writing, reason).await;
                        // The peer may have frames in flight. Closing with unread input resets the connection, and the
                        // peer could lose the closing frame.
                        while let Some(Ok(_)) = reading.next().await {}
                    })
                    .await;
                    // The core closed the link itself, so it needs no message.
                    None
                } else {
                    Some(None)
                }
            }
        };
        if let Some(reason) = ended {
            let _ = self.inbox.send(LinkMessage::Down { link, reason }).await;
        }
    }

    /// Reads until the peer ends the link. Returns the reason in its closing frame, if it sent one.
    async fn read(
        &self,
        frames: &mut (impl Stream<Item = Result<Decoded, PeerError>> + Unpin),
        link: LinkId,
        peer: NodeId,
        (clock, proof): (&PeerClock, &LinkProof),
        (answers, questions): (&mpsc::Sender<Answer>, &LinkQuestions),
    ) -> Option<Reason> {
        let counters = &self.counters;
        loop {
            match frames.next().await? {
                Ok(Decoded::Frame(Frame::Close(close))) => return Some(close.reason),
                Ok(Decoded::Frame(frame)) => {
                    counters.frames_received.add();
                    match frame {
                        Frame::DialBack(request) => {
                            // If the queue is full, the peer has to ask again or use another path.
                            if self.dial_requests.try_send(DialRequest { peer, request }).is_err() {
                                counters.dial_requests_refused.add();
                            }
                        }
                        Frame::Ask(ask) => {
                            let room = questions.room();
                            self.hear(room.map(|room| Heard::Ask(peer, ask, answers.clone(), room)));
                        }
                        Frame::Answer(answer) => {
                            let is_asked = questions.answered(answer.number);
                            self.hear(is_asked.then_some(Heard::Answer(peer, answer)));
                        }
                        Frame::Clock(time) => clock.update(time),
                        Frame::Proof(again) => proof.replace(&again),
                        Frame::Rotation(rotation) => {
                            // If the queue is full, it is sent again.
                            let _ = self.rotations.try_send(HeardRotation { peer, rotation });
                        }
                        Frame::RevocationList(RevocationList { der }) => {
                            // It is sent once, so it has to wait. If nobody takes it, the daemon ends.
                            let _ = self.revocations.send(HeardList { peer, link, der }).await;
                        }
                        frame => self.inbox.send_frame(link, frame).await.ok()?,
                    }
                }
                Ok(Decoded::Skipped { kind, why }) => {
                    counters.frames_skipped.add();
                    tracing::debug!(kind, ?why, "skipped a frame");
                }
                Err(PeerError::Frame(error)) => {
                    tracing::debug!(?peer, "cannot decode a frame: {error}");
                    // The core counts and reports it.
                    let _ = self.inbox.send(LinkMessage::Violated(link)).await;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// Passes on a question or an answer, if the link may have one. If the queue is full, the question is given up.
    fn hear(&self, heard: Option<Heard>) {
        if heard.is_none_or(|heard| self.questions.try_send(heard).is_err()) {
            self.counters.questions_refused.add();
        }
    }

    /// Writes the core's frames, and answers, until the core closes the link. Returns the core's reason, or `None` if the socket
    /// fails.
    async fn write(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        (mut output, mut answers, questions): (mpsc::Receiver<Frame>, mpsc::Receiver<Answer>, &LinkQuestions),
        mut closed: oneshot::Receiver<Close>,
        waiting: &AtomicBool,
        link: LinkId,
    ) -> Option<Reason> {
        let mut codec = PeerCodec::default();
        let mut bytes = BytesMut::new();
        let mut close = None;
        let mut clock = ClockAnnouncer::default();
        let note = |frame: &Frame| {
            if let Frame::Ask(ask) = frame {
                questions.asked(ask.number);
            }
        };
        loop {
            tokio::select! {
                biased;
                frame = output.recv() => match frame {
                    Some(frame) => {
                        note(&frame);
                        self.encode(&mut codec, &frame, &mut bytes);
                    }
                    // The core has dropped the link and left the reason. Without it, the peer would take the end for a
                    // crash.
                    None => close = Some((&mut closed).await),
                },
                closing = &mut closed, if close.is_none() => close = Some(closing),
                Some(answer) = answers.recv() => self.encode(&mut codec, &Frame::Answer(answer), &mut bytes),
            }
            while bytes.len() < BATCH
                && let Ok(frame) = output.try_recv()
            {
                note(&frame);
                self.encode(&mut codec, &frame, &mut bytes);
            }
            if let Some(clock) = clock.due().filter(|_| close.is_none()) {
                self.encode(&mut codec, &clock, &mut bytes);
            }
            if !bytes.is_empty() {
                socket.write_all(&bytes).await.ok()?;
                socket.flush().await.ok()?;
                bytes.clear();
            }
            // Frames that were queued before the end still go out.
            if close.is_some() && output.is_empty() {
                let last = close.and_then(Result::ok);
                let last = last.unwrap_or(Close { reason: Reason::Leaving, frames: Vec::new() });
                last.frames.iter().for_each(|frame| self.encode(&mut codec, frame, &mut bytes));
                socket.write_all(&bytes).await.ok()?;
                return Some(last.reason);
            }
            if waiting.swap(false, Ordering::AcqRel) {
                self.inbox.send(LinkMessage::Writable(link)).await.ok()?;
            }
        }
    }

    /// Encodes a frame, and counts it if it carries registry changes.
    fn encode(&self, codec: &mut PeerCodec, frame: &Frame, bytes: &mut BytesMut) {
        let before = bytes.len();
        // Frames made by this daemon are within the codec's limits.
        let _ = codec.encode(frame, bytes);
        if matches!(frame, Frame::Update(_) | Frame::Updates(_)) {
            self.counters.deltas_sent.add();
            self.counters.delta_sent_bytes.add_many((bytes.len() - before) as u64);
        }
    }
}

impl Protocol for Links {
    fn alpn(&self) -> &'static [u8] {
        ALPN_LINK
    }

    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving {
        let links = self.clone();
        Box::pin(async move {
            links.counters.handshakes.add();
            match links.shares.take(peer.hello.id, peer.address.ip(), Use::Link) {
                Ok(_share) => Links::serve(links, peer, false).await,
                Err(over) => links.shares.refuse(peer, over, &links.counters).await,
            }
            drop(permit);
        })
    }
}

async fn send_close(socket: &mut (impl AsyncWrite + Unpin), reason: Reason) {
    let mut sink = FramedWrite::new(socket, PeerCodec::default());
    let close = Frame::Close(frame::Close { reason, text: String::new() });
    // The link ends whether or not the peer receives the reason.
    let _ = sink.send(&close).await;
    let _ = SinkExt::<&Frame>::close(&mut sink).await;
}
