//! Messages from connections to the core thread, and the only channel that carries them.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, LinkId};
use pmd_protocol::HostName;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Frame, NodeId, Update};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::connection::Traffic;
use super::link_proof::LinkProof;
use super::local_identity::Credentials;
use super::output::LinkOutput;
use super::peer_clock::PeerClock;

/// Capacity of the core's inbox. When it is full, each sender waits with one message, so a busy peer's link is read no
/// faster than the core works.
const CAPACITY: usize = 256;

/// How much memory the frames in the inbox may take, in KiB. A frame of many tiny changes takes twenty times its length once
/// it is decoded, so their number alone does not bound it.
const ROOM: u32 = 2 * 1024;
/// What a change in a frame takes in memory, besides its bytes.
const CHANGE_COST: usize = 128;

/// The error when the core thread has ended because the daemon is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub struct Ended;

/// One message from a connection to the core.
#[derive(Debug)]
pub enum LinkMessage {
    /// A peer has completed the handshake of a link. The core answers with the link's number.
    Up(Box<LinkEnd>, oneshot::Sender<LinkId>),
    /// A link has ended that the core did not close.
    Down {
        /// The link.
        link: LinkId,
        /// The reason in the peer's closing frame, if it sent one.
        reason: Option<Reason>,
    },
    /// A frame was received on a link.
    Frame {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Frame,
        /// Its share of the inbox.
        room: OwnedSemaphorePermit,
    },
    /// The peer of a link has sent bytes that are no frame. The link ends.
    Violated(LinkId),
    /// A link whose queue was full has room again.
    Writable(LinkId),
    /// The outcome of a dial or a probe.
    Dialled(LinkEvent),
    /// A frame was received on a one-shot connection.
    Oneshot {
        /// The peer.
        peer: NodeId,
        /// The frame.
        frame: Frame,
    },
    /// A peer has opened a one-shot connection, which can carry answers.
    OneshotUp {
        /// The peer.
        peer: NodeId,
        /// Queues frames for the peer.
        sender: mpsc::Sender<Frame>,
    },
}

/// This daemon's end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    /// The peer's identity in the membership.
    pub peer: Identity,
    /// The peer's host name.
    pub host: HostName,
    /// The peer's address.
    pub address: SocketAddr,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// How often this daemon had left the cluster when the handshake began.
    pub departures: u64,
    /// The peer's key and certificates.
    pub credentials: Credentials,
    /// Bytes and round-trip time of the connection.
    pub traffic: Arc<Traffic>,
    /// What the peer has proven.
    pub proof: Arc<LinkProof>,
    /// The offset of the peer's clock.
    pub clock: Arc<PeerClock>,
    /// Queues frames for the peer.
    pub output: LinkOutput,
    /// Closes the link.
    pub close: oneshot::Sender<Close>,
}

/// How a link is closed.
#[derive(Debug)]
pub struct Close {
    /// The reason sent to the peer.
    pub reason: Reason,
    /// Frames sent before the closing frame.
    pub frames: Vec<Frame>,
}

/// Sends messages to the core.
#[derive(Debug, Clone)]
pub struct CoreInbox {
    messages: mpsc::Sender<LinkMessage>,
    room: Arc<Semaphore>,
}

impl CoreInbox {
    /// Creates the channel; returns both ends.
    #[must_use]
    pub fn new() -> (CoreInbox, mpsc::Receiver<LinkMessage>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (
            CoreInbox {
                messages: sender,
                room: Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX))),
            },
            receiver,
        )
    }

    /// Sends a message, waiting while the inbox is full.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn send(&self, message: LinkMessage) -> Result<(), Ended> {
        self.messages.send(message).await.map_err(|_| Ended)
    }

    /// Sends a frame that was received on a link, waiting while the inbox is full.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn send_frame(&self, link: LinkId, frame: Frame) -> Result<(), Ended> {
        let room = Arc::clone(&self.room).acquire_many_owned(weight_of(&frame)).await.map_err(|_| Ended)?;
        self.send(LinkMessage::Frame { link, frame, room }).await
    }
}

/// About what a frame takes in memory, in KiB. No more than the inbox has, so that every frame can be sent.
fn weight_of(frame: &Frame) -> u32 {
    let cost = |update: &Update| update.size() + update.ops.len() * CHANGE_COST;
    let bytes = match frame {
        Frame::Update(update) => cost(update),
        Frame::Updates(updates) => updates.updates.iter().map(cost).sum(),
        _ => 0,
    };
    u32::try_from(bytes / 1024).unwrap_or(ROOM).saturating_add(1).min(ROOM)
}
