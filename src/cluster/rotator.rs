//! The interface of rotations of the cluster secret to other modules.

use pmd_protocol::peer::NodeId;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait here.
const REQUESTS: usize = 16;

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// When it was begun, in milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// Whether the old secret is no longer accepted.
    pub finished: bool,
    /// Live members that have the new secret, this daemon included.
    pub have: usize,
    /// The host names of the live members that do not, or their ids.
    pub missing: Vec<String>,
    /// How many members were away and may still return with the old secret.
    pub late: usize,
}

/// Why a rotation was not begun or finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// One is going on.
    #[error("a rotation of the cluster secret is in progress")]
    InProgress,
    /// None is going on.
    #[error("no rotation of the cluster secret is in progress")]
    NotBegun,
    /// The cluster secret is Erlang's cookie.
    #[error("{0} is the Erlang cookie, which pmd does not change")]
    Erlang(String),
    /// This daemon knows no other member, so it would cut itself off from those that it does not know.
    #[error("this daemon knows no other members of its cluster")]
    Alone,
    /// This daemon is not one of the configured administrators.
    #[error("this daemon is not among the administrators of the cluster")]
    NotAdministrator,
    /// Another rotation was begun elsewhere at this moment, which counts.
    #[error("another rotation of the cluster secret was begun at the same time")]
    Overtaken,
    /// The secret cannot be written, or there are no random bytes.
    #[error("cannot store a new cluster secret: {0}")]
    Store(String),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Ended,
}

/// A request to the rotator.
#[derive(Debug)]
pub(super) enum Request {
    Begin(oneshot::Sender<Result<Progress, RotateError>>),
    Expel(NodeId, String, oneshot::Sender<Result<Progress, RotateError>>),
    Finish(oneshot::Sender<Result<Progress, RotateError>>),
    Progress(oneshot::Sender<Option<Progress>>),
}

/// Sends requests to the rotator.
#[derive(Debug, Clone)]
pub struct Rotator(mpsc::Sender<Request>);

/// The receiving end of the requests.
#[derive(Debug)]
pub(super) struct Requests(pub(super) mpsc::Receiver<Request>);

impl Rotator {
    /// Creates the queue; returns both ends.
    pub(super) fn new() -> (Rotator, Requests) {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        (Rotator(sender), Requests(receiver))
    }

    /// Begins a rotation to a new random secret.
    ///
    /// # Errors
    ///
    /// If one is going on, or the secret cannot be stored here.
    pub async fn begin(&self) -> Result<Progress, RotateError> {
        self.ask(Request::Begin).await.unwrap_or(Err(RotateError::Ended))
    }

    /// Expels a member, whose host is named for display, and begins a rotation to a new random secret that it does not get.
    ///
    /// # Errors
    ///
    /// If the secret cannot be stored here; the member is not expelled then.
    pub async fn expel(&self, member: NodeId, host: String) -> Result<Progress, RotateError> {
        let expel = |answer| Request::Expel(member, host, answer);
        self.ask(expel).await.unwrap_or(Err(RotateError::Ended))
    }

    /// Ends the rotation that is going on: the old secret is no longer accepted.
    ///
    /// # Errors
    ///
    /// If none is going on.
    pub async fn finish(&self) -> Result<Progress, RotateError> {
        self.ask(Request::Finish).await.unwrap_or(Err(RotateError::Ended))
    }

    /// How far the latest rotation is; `None` if this daemon knows none.
    pub async fn progress(&self) -> Option<Progress> {
        self.ask(Request::Progress).await.flatten()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(request(sender)).await.ok()?;
        receiver.await.ok()
    }
}
