//! The interface of the joiner to other modules.

use tokio::sync::{mpsc, oneshot};

use crate::discovery::candidates::Listed;

/// Capacity of the question queue.
const QUESTIONS: usize = 16;

/// A request to the joiner.
#[derive(Debug)]
pub(super) enum Question {
    /// List the daemons that were found.
    List(oneshot::Sender<Vec<Listed>>),
    /// Stop dialling this address.
    Forget(String),
}

/// Sends questions to the joiner.
#[derive(Debug, Clone)]
pub struct Joiner(mpsc::Sender<Question>);

/// The receiving end of the question queue.
#[derive(Debug)]
pub(super) struct Questions(pub(super) mpsc::Receiver<Question>);

impl Joiner {
    /// Creates the queue; returns both ends.
    pub(super) fn new() -> (Joiner, Questions) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Joiner(sender), Questions(receiver))
    }

    /// Lists the daemons that were found.
    pub async fn list(&self) -> Vec<Listed> {
        let (sender, receiver) = oneshot::channel();
        // If there is no answer, the daemon is shutting down.
        let _ = self.0.send(Question::List(sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Stops dialling this address, until it is found again.
    pub async fn forget(&self, address: &str) {
        let _ = self.0.send(Question::Forget(address.to_owned())).await;
    }
}
