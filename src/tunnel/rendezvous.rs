//! Matches incoming connections that this daemon requested with a dial-back to the tasks that wait for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::oneshot;

use crate::link::handshake::ProvenPeer;

/// Maximum number of expected connections.
const MOST: usize = 1_024;

/// The token that identifies an expected connection.
pub type Token = [u8; 16];

#[derive(Debug)]
struct Wanted {
    from: NodeId,
    sender: oneshot::Sender<ProvenPeer>,
}

/// The expected connections.
#[derive(Debug, Default)]
pub struct Rendezvous(Mutex<HashMap<Token, Wanted>>);

/// An expected connection. Dropping this value cancels the expectation.
#[derive(Debug)]
pub struct Expected<'a> {
    rendezvous: &'a Rendezvous,
    /// The token that the connection has to present.
    pub token: Token,
    receiver: oneshot::Receiver<ProvenPeer>,
}

impl Rendezvous {
    /// Expects a connection from `from`. Returns `None` if too many are expected already.
    pub fn expect(&self, from: NodeId) -> Option<Expected<'_>> {
        let mut token = Token::default();
        SysRng.try_fill_bytes(&mut token).ok()?;
        let (sender, receiver) = oneshot::channel();
        let mut all = self.all();
        if all.len() >= MOST {
            return None;
        }
        all.insert(token, Wanted { from, sender });
        Some(Expected { rendezvous: self, token, receiver })
    }

    /// Hands a connection to the task that expects it, or closes it if no task does or it comes from the wrong daemon.
    pub fn deliver(&self, token: &Token, peer: ProvenPeer) {
        let mut all = self.all();
        if all.get(token).is_some_and(|wanted| wanted.from == peer.hello.id)
            && let Some(wanted) = all.remove(token)
        {
            drop(all);
            let _ = wanted.sender.send(peer);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Token, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected<'_> {
    /// Waits for the connection, without a timeout.
    pub async fn arrival(&mut self) -> Option<ProvenPeer> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.rendezvous.all().remove(&self.token);
    }
}
