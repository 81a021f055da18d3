//! The interface of claims to the rest of the daemon.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pmd_core::claims::holder::{Loss, Until};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Claim, ClaimName, Frame, Reply, Status, Table};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::link::local_identity::{Credentials, LocalIdentity};

/// Commands that wait for the driver. When there are more, callers and connections wait in turn.
const COMMANDS: usize = 256;

/// A connection that a member has opened.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    /// The member.
    pub(super) id: NodeId,
    /// Its host, in lower case.
    pub(super) host: String,
    /// Frames to it.
    pub(super) frames: mpsc::Sender<Frame>,
    /// Closes the connection.
    pub(super) close: CancellationToken,
}

/// What the driver is told.
#[derive(Debug)]
pub(super) enum Command {
    Claim {
        name: ClaimName,
        ttl_ms: u32,
        state: watch::Sender<State>,
        attempt: oneshot::Sender<u64>,
    },
    Release(u64),
    Abandon(u64),
    /// Release the claim of this daemon with this number, and say whether there was one.
    ReleaseNumber {
        name: ClaimName,
        number: u64,
        found: oneshot::Sender<bool>,
    },
    List(oneshot::Sender<Table>),
    Voters(oneshot::Sender<Vec<VoterView>>),
    Connected(u8, mpsc::Sender<Frame>),
    Disconnected(u8),
    Replied(Reply),
    Arrived(Accepted, Frame),
}

/// The state of a claim that somebody on this host asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The voters have not answered yet.
    Asked,
    /// Somebody else holds it.
    Busy(Claim),
    /// There are too many claims in the cluster.
    Full,
    /// It is held.
    Held {
        /// Its number.
        number: u64,
        /// How long it lasts unless it is renewed.
        until: Until,
    },
    /// It is over.
    Lost(Loss),
}

/// A voter as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterView {
    /// Its host.
    pub host: String,
    /// Whether this is the daemon itself.
    pub own: bool,
    /// What it said of itself; none if it was not reached.
    pub status: Option<Status>,
}

/// Claims have ended on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("claims have ended on this host: {0}")]
pub struct Failed(pub String);

/// Claims, for the control API.
#[derive(Debug)]
pub struct Claims {
    hosts: Vec<String>,
    commands: mpsc::Sender<Command>,
    runtime: Handle,
    /// Why this host does not vote although it should, or claims have ended here.
    problem: Mutex<Option<String>>,
    local: Arc<LocalIdentity>,
    held: AtomicUsize,
    /// Whether this host votes; none if it is no voter.
    votes: Mutex<Option<bool>>,
}

impl Claims {
    pub(super) fn new(
        hosts: Vec<String>,
        local: Arc<LocalIdentity>,
        runtime: Handle,
    ) -> (Arc<Claims>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let claims = Claims {
            hosts,
            commands,
            runtime,
            problem: Mutex::default(),
            local,
            held: AtomicUsize::default(),
            votes: Mutex::default(),
        };
        (Arc::new(claims), receiver)
    }

    /// The hosts of the voters.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Why this host does not vote although it should, or why there are no claims here.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many claims this host holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether this host votes and knows a leader; none if it is no voter.
    #[must_use]
    pub fn votes(&self) -> Option<bool> {
        *self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_held(&self, held: usize) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn set_votes(&self, votes: bool) {
        *self.votes.lock().unwrap_or_else(PoisonError::into_inner) = Some(votes);
    }

    pub(super) fn set_problem(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// Waits until one of these is expelled, or its certificate is revoked.
    pub(super) async fn until_barred(&self, peers: &[Credentials]) {
        self.local.until_barred(peers).await;
    }

    /// Sends a command; returns whether there is a driver.
    pub(super) async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Asks for a claim, until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// If there are no claims on this host any more.
    pub async fn claim(self: &Arc<Self>, name: ClaimName, ttl_ms: u32) -> Result<HeldClaim, Failed> {
        let (sender, state) = watch::channel(State::Asked);
        let (attempt, attempted) = oneshot::channel();
        self.send(Command::Claim { name, ttl_ms, state: sender, attempt }).await;
        let attempt = attempted.await.map_err(|_| self.failed())?;
        Ok(HeldClaim { claims: Arc::clone(self), attempt, state, on_drop: OnDrop::Release })
    }

    /// Releases the claim of this name that somebody on this host holds with this number; false if nobody does.
    ///
    /// # Errors
    ///
    /// If there are no claims on this host any more.
    pub async fn release(&self, name: ClaimName, number: u64) -> Result<bool, Failed> {
        let (found, answer) = oneshot::channel();
        self.send(Command::ReleaseNumber { name, number, found }).await;
        answer.await.map_err(|_| self.failed())
    }

    /// All claims; none if no majority of voters has answered in time.
    ///
    /// # Errors
    ///
    /// If there are no claims on this host any more.
    pub async fn list(&self, timeout: Duration) -> Result<Option<Table>, Failed> {
        let (table, answer) = oneshot::channel();
        self.send(Command::List(table)).await;
        match tokio::time::timeout(timeout, answer).await {
            Ok(table) => Ok(Some(table.map_err(|_| self.failed())?)),
            Err(_) => Ok(None),
        }
    }

    /// The voters.
    ///
    /// # Errors
    ///
    /// If there are no claims on this host any more.
    pub async fn voters(&self) -> Result<Vec<VoterView>, Failed> {
        let (voters, answer) = oneshot::channel();
        self.send(Command::Voters(voters)).await;
        answer.await.map_err(|_| self.failed())
    }

    fn failed(&self) -> Failed {
        Failed(self.problem().unwrap_or_else(|| "the daemon is shutting down".to_owned()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Release,
    Abandon,
}

/// A claim that is asked for or held, until it is dropped.
#[derive(Debug)]
pub struct HeldClaim {
    claims: Arc<Claims>,
    attempt: u64,
    state: watch::Receiver<State>,
    on_drop: OnDrop,
}

impl HeldClaim {
    /// When it is dropped without having been released by its number, what depends on it may still run, so it is kept until
    /// the guardian of that has killed it.
    pub fn keep_until_dead(&mut self) {
        self.on_drop = OnDrop::Abandon;
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Waits until the state changes; false if the daemon shuts down.
    pub async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        let (claims, attempt) = (Arc::clone(&self.claims), self.attempt);
        let command = match self.on_drop {
            OnDrop::Release => Command::Release(attempt),
            OnDrop::Abandon => Command::Abandon(attempt),
        };
        self.claims.runtime.spawn(async move { claims.send(command).await });
    }
}
