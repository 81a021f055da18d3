//! The signals that end a program.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use super::failure::Result;

/// SIGTERM, SIGINT and SIGHUP: of `kill`, of Ctrl-C, and of a closed terminal.
#[derive(Debug)]
pub struct Signals([unix::Signal; 3]);

impl Signals {
    /// From now on these signals no longer end the process.
    pub fn new() -> Result<Signals> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        Ok(Signals([terminate?, interrupt?, hangup?]))
    }

    /// Waits for one of them.
    pub async fn next(&mut self) -> Signal {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
            _ = hangup.recv() => Signal::HUP,
        }
    }
}
