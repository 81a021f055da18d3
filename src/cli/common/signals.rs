//! The signals that terminate a program.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use super::failure::Result;

/// Receives SIGTERM (`kill`), SIGINT (Ctrl-C) and SIGHUP (a closed terminal).
#[derive(Debug)]
pub struct Signals([unix::Signal; 3]);

impl Signals {
    /// Installs handlers: from now on, these signals no longer terminate the process.
    pub fn new() -> Result<Signals> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        Ok(Signals([terminate?, interrupt?, hangup?]))
    }

    /// Waits for the next of these signals.
    pub async fn next(&mut self) -> Signal {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
            _ = hangup.recv() => Signal::HUP,
        }
    }
}
