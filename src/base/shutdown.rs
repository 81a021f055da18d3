//! How the daemon is told to end, from any thread.

use tokio::sync::watch;

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A KILL request of the EPMD protocol.
    Kill,
    /// `pmd stop`, through the control socket.
    Stop,
    /// SIGTERM or SIGINT.
    Signal,
    /// A part that it cannot do without has ended.
    Failed,
}

/// The switch; the first reason given is the one that counts. Clones are the same switch.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<Option<Reason>>);

impl Shutdown {
    /// A switch that nobody has thrown.
    pub fn new() -> Shutdown {
        Shutdown(watch::Sender::new(None))
    }

    /// Throws the switch.
    pub fn request(&self, reason: Reason) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// The reason, once somebody has thrown the switch.
    pub fn requested(&self) -> Option<Reason> {
        *self.0.borrow()
    }

    /// Waits until somebody throws the switch.
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
