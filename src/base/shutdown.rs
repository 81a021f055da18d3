//! Requests the shutdown of the daemon, from any thread.

use tokio::sync::watch;

/// Why the daemon shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A KILL request of the EPMD protocol.
    Kill,
    /// `pmd stop`, through the control socket.
    Stop,
    /// SIGTERM or SIGINT.
    Signal,
    /// An essential thread or task has ended.
    Failed,
}

/// The shutdown state, shared by all clones. The first request sets the reason.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<Option<Reason>>);

impl Shutdown {
    /// Creates the state without a request.
    pub fn new() -> Shutdown {
        Shutdown(watch::Sender::new(None))
    }

    /// Requests the shutdown.
    pub fn request(&self, reason: Reason) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// The reason, once the shutdown has been requested.
    pub fn requested(&self) -> Option<Reason> {
        *self.0.borrow()
    }

    /// Waits until the shutdown is requested.
    pub async fn wait(&self) -> Reason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                return Reason::Stop;
            }
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown::new()
    }
}
