//! One-shot connections: a frame or two between daemons that have no link.
//!
//! A connection opened for one frame is kept for later frames and for answers until it has been idle for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_core::membership::Identity;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use tokio::sync::mpsc;

use super::dial::Dialer;
use super::handshake::{ProvenPeer, close};
use super::inbox::{CoreInbox, LinkMessage};
use super::local_identity::LocalIdentity;
use super::protocol::{Protocol, Serving};
use super::shares::{Shares, Use};
use crate::auth::tls::ALPN_PACKET;
use crate::base::permit::Permit;
use crate::base::stats::Counters;

/// Maximum number of open connections. Frames to members without a link are rare; only after losing many links at once
/// are there more, and then the frames of other members must suffice.
const MAX_CONNECTIONS: usize = 64;
/// Frames waiting for a connection to be established.
const QUEUE: usize = 8;
/// A connection without a frame for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The open connections, by peer. Owned by the core.
#[derive(Debug, Default)]
pub struct Pool {
    open: HashMap<NodeId, mpsc::Sender<Frame>>,
}

impl Pool {
    /// Sends a frame over an open connection or a new one. Delivery is not guaranteed.
    pub fn send(&mut self, dialer: &Dialer, inbox: &CoreInbox, to: Identity, frame: Frame) {
        if let Some(open) = self.open.get(&to.id)
            && !matches!(open.try_send(frame.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        {
            return;
        }
        self.open.retain(|_, open| !open.is_closed());
        if self.open.len() >= MAX_CONNECTIONS {
            return;
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let _ = sender.try_send(frame);
        self.open.insert(to.id, sender);
        let inbox = inbox.clone();
        let task = dialer.clone();
        dialer.runtime().spawn(async move {
            match task.reach(&to.addresses, Some(to.id), ALPN_PACKET).await {
                Ok(peer) => {
                    let credentials = [peer.credentials.clone()];
                    tokio::select! {
                        () = serve(peer, inbox, Some(receiver)) => {}
                        () = task.local().until_barred(&credentials) => {}
                    }
                }
                Err(error) => tracing::debug!(peer = ?to.id, "cannot send a frame: {error}"),
            }
        });
    }

    /// Adds a connection opened by this peer, which can carry answers.
    pub fn add(&mut self, peer: NodeId, sender: mpsc::Sender<Frame>) {
        self.open.retain(|_, open| !open.is_closed());
        // Those that peers open leave room for those that this daemon needs.
        if self.open.len() < MAX_CONNECTIONS / 2 {
            self.open.insert(peer, sender);
        }
    }
}

/// The protocol of one-shot connections.
#[derive(Debug)]
pub struct Oneshots {
    local: Arc<LocalIdentity>,
    inbox: CoreInbox,
    counters: Arc<Counters>,
    shares: Arc<Shares>,
}

impl Oneshots {
    /// Creates the protocol. Frames go to the core; `shares` limits the connections of each peer.
    #[must_use]
    pub fn new(
        local: Arc<LocalIdentity>,
        inbox: CoreInbox,
        counters: Arc<Counters>,
        shares: Arc<Shares>,
    ) -> Oneshots {
        Oneshots { local, inbox, counters, shares }
    }
}

impl Protocol for Oneshots {
    fn alpn(&self) -> &'static [u8] {
        ALPN_PACKET
    }

    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving {
        let (inbox, counters, shares) =
            (self.inbox.clone(), Arc::clone(&self.counters), Arc::clone(&self.shares));
        let (local, credentials) = (Arc::clone(&self.local), [peer.credentials.clone()]);
        Box::pin(async move {
            match shares.take(peer.hello.id, peer.address.ip(), Use::Oneshot) {
                Ok(_share) => tokio::select! {
                    () = serve(peer, inbox, None) => {}
                    () = local.until_barred(&credentials) => {}
                },
                Err(over) => shares.refuse(peer, over, &counters).await,
            }
            drop(permit);
        })
    }
}

/// Serves a connection until it is idle. A connection opened by the peer has no `output` yet; the core is given one for
/// its answers.
async fn serve(peer: ProvenPeer, inbox: CoreInbox, output: Option<mpsc::Receiver<Frame>>) {
    let ProvenPeer { hello, mut frames, .. } = peer;
    let peer = hello.id;
    let mut output = match output {
        Some(output) => output,
        None => {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let up = LinkMessage::OneshotUp { peer, sender };
            if inbox.send(up).await.is_err() {
                return;
            }
            receiver
        }
    };
    loop {
        tokio::select! {
            frame = output.recv() => {
                let Some(frame) = frame else { break };
                if frames.send(&frame).await.is_err() {
                    return;
                }
            }
            read = frames.next() => match read {
                Some(Ok(Decoded::Frame(frame @ (Frame::Membership(_) | Frame::Depart(_))))) => {
                    if inbox.send(LinkMessage::Oneshot { peer, frame }).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Decoded::Skipped { .. })) => {}
                // Other frames are not allowed on a one-shot connection.
                _ => return,
            },
            () = tokio::time::sleep(IDLE_TIMEOUT) => break,
        }
    }
    close(&mut frames, Reason::NotNeeded, String::new()).await;
}
