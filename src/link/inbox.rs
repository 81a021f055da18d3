//! What connections tell the core thread, and the only way on which they reach it.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, LinkId};
use pmd_protocol::HostName;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Frame, NodeId};
use tokio::sync::{mpsc, oneshot};

use super::connection::Traffic;
use super::output::LinkOutput;
use super::peer_clock::PeerClock;

/// Messages that wait for the core. When it is full senders wait, each with one message: a busy peer's link is read no
/// faster than the core works.
const CAPACITY: usize = 256;

/// The core thread has ended, and with it the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub struct Ended;

/// One message from a connection to the core.
#[derive(Debug)]
pub enum LinkMessage {
    /// A peer has completed the handshake of a link; the number of the link is sent back.
    Up(Box<LinkEnd>, oneshot::Sender<LinkId>),
    /// A link has ended without the core having closed it.
    Down {
        /// The link.
        link: LinkId,
        /// The reason that the peer gave before it closed, if it gave one.
        reason: Option<Reason>,
    },
    /// A frame was received on a link.
    Frame {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// A link that had no room for another frame has room again.
    Writable(LinkId),
    /// The outcome of a dial or a probe.
    Dialled(LinkEvent),
    /// A frame was received on a one-shot connection.
    Oneshot(Frame),
    /// A peer has opened a one-shot connection, which can carry answers.
    OneshotUp {
        /// The peer.
        peer: NodeId,
        /// Takes frames for it.
        sender: mpsc::Sender<Frame>,
    },
}

/// This daemon's end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    /// The peer as the membership names it.
    pub peer: Identity,
    /// The peer's host name.
    pub host: HostName,
    /// The peer's address.
    pub address: SocketAddr,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// How often this daemon had left the cluster when the handshake began.
    pub departures: u64,
    /// Bytes and round-trip time of the connection.
    pub traffic: Arc<Traffic>,
    /// The offset of the peer's clock.
    pub clock: Arc<PeerClock>,
    /// Takes frames for the peer.
    pub output: LinkOutput,
    /// Closes the link.
    pub close: oneshot::Sender<Close>,
}

/// How a link is closed.
#[derive(Debug)]
pub struct Close {
    /// The reason that the peer is given.
    pub reason: Reason,
    /// Frames that it gets before that.
    pub frames: Vec<Frame>,
}

/// Sends messages to the core.
#[derive(Debug, Clone)]
pub struct CoreInbox(mpsc::Sender<LinkMessage>);

impl CoreInbox {
    /// The sending and the receiving end.
    #[must_use]
    pub fn new() -> (CoreInbox, mpsc::Receiver<LinkMessage>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (CoreInbox(sender), receiver)
    }

    /// Sends a message; waits for room.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn send(&self, message: LinkMessage) -> Result<(), Ended> {
        self.0.send(message).await.map_err(|_| Ended)
    }
}
