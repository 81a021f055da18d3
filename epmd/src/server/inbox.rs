//! What other threads have for a shard: results of holder checks, calls for help, and the word to end.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::connections::Token;

/// The inbox of one shard, with a bell that its epoll set watches.
#[derive(Debug)]
pub(super) struct Inbox {
    // At most one for each connection in the state Checking, so it is bounded by the queue of checks.
    checked: Mutex<Vec<(Token, bool)>>,
    help_wanted: AtomicBool,
    stopped: AtomicBool,
    bell: OwnedFd,
}

impl Inbox {
    /// Leaves the result of a holder check for the connection `asker`, and wakes its shard.
    pub(super) fn deliver(&self, asker: Token, dead: bool) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).push((asker, dead));
        self.ring();
    }

    pub(super) fn new() -> Result<Inbox, Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Inbox {
            checked: Mutex::default(),
            help_wanted: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            bell,
        })
    }

    pub(super) fn ring(&self) {
        // A full counter means that the bell rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Asks the shard to help with accepting; false if it does already.
    pub(super) fn call_for_help(&self) -> bool {
        let rested = !self.help_wanted.swap(true, Ordering::Relaxed);
        if rested {
            self.ring();
        }
        rested
    }

    pub(super) fn collect(&self) -> Vec<(Token, bool)> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut counter);
        std::mem::take(&mut *self.checked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bell.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Whether the shard is to help with accepting.
    pub(super) fn is_help_wanted(&self) -> bool {
        self.help_wanted.load(Ordering::Relaxed)
    }

    /// The shard rests again.
    pub(super) fn rest(&self) {
        self.help_wanted.store(false, Ordering::Relaxed);
    }

    /// Tells the shard to end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Whether the shard was told to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
