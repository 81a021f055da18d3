//! Answers other daemons that ask what is registered on this host.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_protocol::limits::MAX_ANSWERED;
use pmd_protocol::peer::frame::{Answer, Ask, Reason};
use pmd_protocol::peer::{Frame, NodeId};

use super::state::Tunnels;
use crate::base::clock::Monotonic;
use crate::link::handshake::{Frames, close};

/// How long the other side of a connection may take to close it after the answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the question of a peer on a connection of its own.
pub(super) async fn serve(tunnels: &Tunnels, peer: NodeId, ask: &Ask, mut frames: Frames) {
    match answer(tunnels, peer, ask) {
        Some(answer) => {
            if frames.send(&Frame::Answer(answer)).await.is_ok() {
                let closed = async { while let Some(Ok(_)) = frames.next().await {} };
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
            }
        }
        None => close(&mut frames, Reason::Busy, String::new()).await,
    }
}

/// What this host has registered, for a member that does not ask too often.
pub(super) fn answer(tunnels: &Tunnels, peer: NodeId, ask: &Ask) -> Option<Answer> {
    let parts = &tunnels.parts;
    let is_member = parts.directory.host_of(&peer).is_some();
    if !is_member || !tunnels.askers().accept(Monotonic::now().as_ms(), peer) {
        parts.counters.questions_refused.add();
        return None;
    }
    parts.counters.questions_answered.add();
    let entries = parts.local.find(&ask.name);
    let entries = entries.iter().filter_map(|entry| entry.write().ok()).take(MAX_ANSWERED).collect();
    Some(Answer { number: ask.number, entries })
}
