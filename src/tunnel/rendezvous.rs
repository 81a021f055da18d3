//! Connections that this daemon has asked others to make, until they are there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::oneshot;

use crate::link::handshake::Greeted;

/// Connections that can be waited for at once.
const MOST: usize = 1_024;

/// Tells one connection from all others.
pub type Token = [u8; 16];

#[derive(Debug)]
struct Wanted {
    from: NodeId,
    sender: oneshot::Sender<Greeted>,
}

/// Who waits for which connection.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<Token, Wanted>>);

/// A connection that is waited for, as long as this lives.
#[derive(Debug)]
pub struct Expected<'a> {
    waiting: &'a Waiting,
    /// What it is known by.
    pub token: Token,
    receiver: oneshot::Receiver<Greeted>,
}

impl Waiting {
    /// Waits for a connection from `from`; none if too many are waited for.
    pub fn expect(&self, from: NodeId) -> Option<Expected<'_>> {
        let mut token = Token::default();
        SysRng.try_fill_bytes(&mut token).ok()?;
        let (sender, receiver) = oneshot::channel();
        let mut all = self.all();
        if all.len() >= MOST {
            return None;
        }
        all.insert(token, Wanted { from, sender });
        Some(Expected { waiting: self, token, receiver })
    }

    /// Gives a connection to who waits for it; closes it if nobody does, or waits for one from somebody else.
    pub fn take(&self, token: &Token, greeted: Greeted) {
        let mut all = self.all();
        if all.get(token).is_some_and(|wanted| wanted.from == greeted.hello.id)
            && let Some(wanted) = all.remove(token)
        {
            drop(all);
            let _ = wanted.sender.send(greeted);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Token, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected<'_> {
    /// Waits for it; as long as the caller wants.
    pub async fn come(&mut self) -> Option<Greeted> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.waiting.all().remove(&self.token);
    }
}
