//! Short connections: for membership packets between daemons that have no link.
//!
//! A connection that was made for one packet is kept for those that follow, and for the answers to them, until it has
//! been silent for a while.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_core::membership::Identity;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Decoded, Frame, NodeId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::dial::Dialer;
use super::handshake::{Greeted, say_farewell};
use crate::cluster::driver::{Core, Input};

/// Connections at once. Packets to members without a link are few; more only after many links were lost at once, when
/// other packets have to do.
const CONNECTIONS: usize = 64;
/// Packets that wait for a connection.
const WAITING: usize = 8;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// The connections, by peer. Owned by the core.
#[derive(Debug, Default)]
pub struct Pool {
    open: HashMap<NodeId, mpsc::Sender<Frame>>,
}

impl Pool {
    /// Sends a packet, over a connection that is there or a new one. It may get lost.
    pub fn send(&mut self, runtime: &Handle, dialer: &Dialer, core: &Core, to: Identity, frame: Frame) {
        if let Some(open) = self.open.get(&to.id)
            && !matches!(open.try_send(frame.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        {
            return;
        }
        self.open.retain(|_, open| !open.is_closed());
        if self.open.len() >= CONNECTIONS {
            return;
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let _ = sender.try_send(frame);
        self.open.insert(to.id, sender);
        let (dialer, core) = (dialer.clone(), core.clone());
        runtime.spawn(async move {
            match dialer.reach_for_packets(&to).await {
                Ok(greeted) => serve(greeted, core, Some(receiver)).await,
                Err(error) => tracing::debug!(peer = ?to.id, "a packet could not be sent: {error}"),
            }
        });
    }

    /// Answers to this peer can go over a connection that it has made.
    pub fn add(&mut self, peer: NodeId, sender: mpsc::Sender<Frame>) {
        self.open.retain(|_, open| !open.is_closed());
        if self.open.len() < CONNECTIONS {
            self.open.insert(peer, sender);
        }
    }
}

/// Serves a short connection until it is silent. One that the peer has made, without `output`, is offered to the core for
/// its answers.
pub async fn serve(greeted: Greeted, core: Core, output: Option<mpsc::Receiver<Frame>>) {
    let Greeted { hello, mut frames, .. } = greeted;
    let mut output = match output {
        Some(output) => output,
        None => {
            let (sender, receiver) = mpsc::channel(WAITING);
            if core.send(Input::PacketsUp { peer: hello.id, sender }).await.is_err() {
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
                    if core.send(Input::Packet(frame)).await.is_err() {
                        return;
                    }
                }
                // Nothing else has a place here.
                Some(Ok(Decoded::Skipped { .. })) => {}
                _ => return,
            },
            () = tokio::time::sleep(IDLE) => break,
        }
    }
    say_farewell(&mut frames, Reason::NotNeeded, String::new()).await;
}
