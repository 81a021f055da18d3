//! The joiner, as others talk to it.

use tokio::sync::{mpsc, oneshot};

use crate::discovery::candidates::Listed;

/// Questions that wait for an answer.
const QUESTIONS: usize = 16;
/// What the joiner can be asked.
#[derive(Debug)]
pub(super) enum Question {
    /// The daemons that were found.
    List(oneshot::Sender<Vec<Listed>>),
    /// Do not dial this address any more.
    Forget(String),
}

/// Sends questions to the joiner.
#[derive(Debug, Clone)]
pub struct Joiner(mpsc::Sender<Question>);

/// The questions that it has not answered yet.
#[derive(Debug)]
pub(super) struct Questions(pub(super) mpsc::Receiver<Question>);

impl Joiner {
    /// The sending and the receiving end.
    pub(super) fn new() -> (Joiner, Questions) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Joiner(sender), Questions(receiver))
    }

    /// The daemons that were found.
    pub async fn list(&self) -> Vec<Listed> {
        let (sender, receiver) = oneshot::channel();
        // Without an answer the daemon is shutting down.
        let _ = self.0.send(Question::List(sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Stops dialling this address, until it is found again.
    pub async fn forget(&self, address: &str) {
        let _ = self.0.send(Question::Forget(address.to_owned())).await;
    }
}
