//! The core thread, as the rest of the daemon talks to it: by commands, each of a type of its own, and snapshots.

use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_protocol::peer::{Frame, NodeId};
use tokio::sync::{mpsc, oneshot};

use super::view::ClusterView;
pub use crate::link::inbox::Ended;

/// Commands that wait for the core. Callers beyond that wait in turn.
const CAPACITY: usize = 64;

/// What the core is told to do.
#[derive(Debug)]
pub(super) enum CoreCommand {
    /// Take a snapshot.
    View(oneshot::Sender<Arc<ClusterView>>),
    /// Ask all linked peers for the digests of their registries.
    AskDigests,
    /// Count the bytes and the tombstones that are kept.
    Weigh(oneshot::Sender<Weight>),
    /// Leave the cluster; `left` is told once everybody has been.
    Leave {
        /// How many other members there were.
        members: oneshot::Sender<usize>,
        /// Every member was told.
        left: oneshot::Sender<()>,
    },
    /// Tell a member to leave: over the link to it, or a one-shot connection. The message may get lost.
    Dismiss(Identity),
    /// Send a frame that is none of the core's to these peers.
    Send {
        /// The peers.
        peers: Vec<NodeId>,
        /// The frame.
        frame: Frame,
        /// What became of it, peer by peer.
        sent: oneshot::Sender<Vec<Sent>>,
    },
    /// End the thread.
    Stop,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// The link has no room for it; it was dropped.
    NoRoom,
    /// There is no link to that peer.
    NoLink,
}

/// What the registry takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of the names and values of all entries that this daemon keeps.
    pub bytes: usize,
    /// Ended entries that are remembered so that others learn of their end.
    pub tombstones: usize,
}

/// Sends commands to the core thread.
#[derive(Debug, Clone)]
pub struct Core(mpsc::Sender<CoreCommand>);

impl Core {
    /// The sending and the receiving end.
    pub(super) fn new() -> (Core, mpsc::Receiver<CoreCommand>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Core(sender), receiver)
    }

    /// A snapshot of members, links and alarms, as of now.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn view(&self) -> Result<Arc<ClusterView>, Ended> {
        self.ask(CoreCommand::View).await
    }

    /// Asks all linked peers for the digests of their registries, which a later snapshot has.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn ask_digests(&self) -> Result<(), Ended> {
        self.tell(CoreCommand::AskDigests).await
    }

    /// Counts what the registry takes.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn weigh(&self) -> Result<Weight, Ended> {
        self.ask(CoreCommand::Weigh).await
    }

    /// Leaves the cluster. Returns how many other members there were, and a receiver that is told once they know.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn leave(&self) -> Result<(usize, oneshot::Receiver<()>), Ended> {
        let (left, told) = oneshot::channel();
        let members = self.ask(|members| CoreCommand::Leave { members, left }).await?;
        Ok((members, told))
    }

    /// Tells a member to leave.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn dismiss(&self, member: Identity) -> Result<(), Ended> {
        self.tell(CoreCommand::Dismiss(member)).await
    }

    /// Sends a frame to these peers, as far as there are links with room; what became of it, peer by peer.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn send(&self, peers: Vec<NodeId>, frame: Frame) -> Result<Vec<Sent>, Ended> {
        self.ask(|sent| CoreCommand::Send { peers, frame, sent }).await
    }

    /// Ends the core thread.
    pub async fn stop(&self) {
        // It has ended already.
        let _ = self.tell(CoreCommand::Stop).await;
    }

    async fn tell(&self, command: CoreCommand) -> Result<(), Ended> {
        self.0.send(command).await.map_err(|_| Ended)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> CoreCommand) -> Result<T, Ended> {
        let (sender, receiver) = oneshot::channel();
        self.tell(command(sender)).await?;
        receiver.await.map_err(|_| Ended)
    }
}
