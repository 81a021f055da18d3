//! The interface of the core thread to the rest of the daemon: commands and snapshots.

use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_core::node::LinkId;
use pmd_protocol::peer::{Frame, NodeId, Rotation};
use tokio::sync::{mpsc, oneshot};

use super::view::ClusterView;
use crate::auth::cookie::CookieKey;
use crate::auth::revocation::VerifiedList;
pub use crate::link::inbox::Ended;

/// Capacity of the command queue. When it is full, callers wait in turn.
const CAPACITY: usize = 64;

/// A command to the core thread.
#[derive(Debug)]
pub(super) enum CoreCommand {
    /// Take a snapshot.
    View(oneshot::Sender<Arc<ClusterView>>),
    /// Ask all linked peers for the digests of their registries.
    AskDigests,
    /// Measure the size of the registry.
    Weigh(oneshot::Sender<Weight>),
    /// Leave the cluster.
    Leave {
        /// Receives the number of other members.
        members: oneshot::Sender<usize>,
        /// Notified once every member has been told.
        left: oneshot::Sender<()>,
    },
    /// Expel a member, or readmit it.
    Decide {
        /// The member.
        member: NodeId,
        /// Its host name, for display.
        host: String,
        /// Whether to expel it.
        expelled: bool,
        /// Receives whether the decision was carried out.
        done: oneshot::Sender<bool>,
    },
    /// Tell a member to leave, over its link or a one-shot connection. Delivery is not guaranteed.
    Dismiss(Identity),
    /// Send a frame that does not come from the core to these peers.
    Send {
        /// The peers.
        peers: Vec<NodeId>,
        /// The frame.
        frame: Frame,
        /// Receives the outcome for each peer.
        sent: oneshot::Sender<Vec<Sent>>,
    },
    /// Send a rotation of the secret to all peers and to those that follow, prove the secret of this key on all links,
    /// and publish that this daemon has it.
    Rotate(Box<Rotating>),
    /// Send the latest rotation to a peer that has an older one, if it is entitled to the secret.
    SendRotation(NodeId),
    /// List the ids of all members that the table knows, dead or alive, and whether they have left.
    Known(oneshot::Sender<Vec<(NodeId, bool)>>),
    /// List the peers that have proven the secret of this key on their links.
    Proven(CookieKey, oneshot::Sender<Vec<NodeId>>),
    /// Close the links whose peers have not proven the secret of this key.
    CloseUnproven(CookieKey),
    /// Send a list of revoked certificates to all peers and to those that follow, and close the links of revoked ones.
    Revoke(Arc<VerifiedList>),
    /// Close a link whose peer has sent what no correct daemon sends.
    Violated(LinkId),
    /// Stop the thread.
    Stop,
}

/// A rotation of the secret that is carried out.
#[derive(Debug)]
pub(super) struct Rotating {
    /// The rotation.
    pub rotation: Rotation,
    /// The key of its secret.
    pub key: CookieKey,
    /// To whom it is sent.
    pub spread: Spread,
    /// Whether to publish that this daemon has it.
    pub publish: bool,
}

/// Which peers are sent a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// All.
    All,
    /// Those that have not proven the new secret.
    Unproven,
}

/// The outcome of sending a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The frame was queued.
    Yes,
    /// The link had no room, so the frame was dropped.
    NoRoom,
    /// There is no link to that peer.
    NoLink,
}

/// The size of the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Total bytes of the names and values of all entries.
    pub bytes: usize,
    /// Removed entries that are kept so that other members learn of the removal.
    pub tombstones: usize,
}

/// Sends commands to the core thread.
#[derive(Debug, Clone)]
pub struct Core(mpsc::Sender<CoreCommand>);

impl Core {
    /// Creates the command queue; returns both ends.
    pub(super) fn new() -> (Core, mpsc::Receiver<CoreCommand>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Core(sender), receiver)
    }

    /// Takes a snapshot of members, links and alarms.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn view(&self) -> Result<Arc<ClusterView>, Ended> {
        self.ask(CoreCommand::View).await
    }

    /// Asks all linked peers for the digests of their registries, which later snapshots contain.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn ask_digests(&self) -> Result<(), Ended> {
        self.tell(CoreCommand::AskDigests).await
    }

    /// Measures the size of the registry.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn weigh(&self) -> Result<Weight, Ended> {
        self.ask(CoreCommand::Weigh).await
    }

    /// Leaves the cluster. Returns the number of other members, and a receiver that is notified once they have been
    /// told.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn leave(&self) -> Result<(usize, oneshot::Receiver<()>), Ended> {
        let (left, told) = oneshot::channel();
        let members = self.ask(|members| CoreCommand::Leave { members, left }).await?;
        Ok((members, told))
    }

    /// Expels a member, or readmits it; `host` is its host name, for display. Returns whether that was carried out, which
    /// it is unless this daemon is leaving.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn decide(&self, member: NodeId, host: String, expelled: bool) -> Result<bool, Ended> {
        self.ask(|done| CoreCommand::Decide { member, host, expelled, done }).await
    }

    /// Tells a member to leave.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn dismiss(&self, member: Identity) -> Result<(), Ended> {
        self.tell(CoreCommand::Dismiss(member)).await
    }

    /// Sends a frame to these peers over their links. Returns the outcome for each peer.
    ///
    /// # Errors
    ///
    /// If the core has ended.
    pub async fn send(&self, peers: Vec<NodeId>, frame: Frame) -> Result<Vec<Sent>, Ended> {
        self.ask(|sent| CoreCommand::Send { peers, frame, sent }).await
    }

    /// Sends a rotation of the secret to the peers that are entitled to it and to those that follow, proves the secret of
    /// `key` to them, and publishes that this daemon has it, if it is to.
    pub(super) async fn rotate(
        &self,
        rotation: Rotation,
        key: CookieKey,
        spread: Spread,
        publish: bool,
    ) -> Result<(), Ended> {
        self.tell(CoreCommand::Rotate(Box::new(Rotating { rotation, key, spread, publish }))).await
    }

    /// Sends the latest rotation to a peer that has an older one, if it is entitled to the secret.
    pub(super) async fn send_rotation(&self, peer: NodeId) -> Result<(), Ended> {
        self.tell(CoreCommand::SendRotation(peer)).await
    }

    /// The ids of all members that are known, dead or alive, and whether they have left.
    pub(super) async fn known(&self) -> Result<Vec<(NodeId, bool)>, Ended> {
        self.ask(CoreCommand::Known).await
    }

    /// The peers that have proven the secret of this key on their links.
    pub(super) async fn proven(&self, key: CookieKey) -> Result<Vec<NodeId>, Ended> {
        self.ask(|answer| CoreCommand::Proven(key, answer)).await
    }

    /// Closes the links whose peers have not proven the secret of this key.
    pub(super) async fn close_unproven(&self, key: CookieKey) -> Result<(), Ended> {
        self.tell(CoreCommand::CloseUnproven(key)).await
    }

    /// Sends a list of revoked certificates to all peers and to those that follow, and closes the links of revoked ones.
    pub(super) async fn revoke(&self, list: Arc<VerifiedList>) -> Result<(), Ended> {
        self.tell(CoreCommand::Revoke(list)).await
    }

    /// Closes a link whose peer has sent what no correct daemon sends.
    pub(super) async fn violated(&self, link: LinkId) -> Result<(), Ended> {
        self.tell(CoreCommand::Violated(link)).await
    }

    /// Stops the core thread.
    pub async fn stop(&self) {
        // An error means that the thread has already ended.
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
