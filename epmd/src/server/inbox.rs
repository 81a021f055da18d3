//! Messages from other threads to a shard: results of holder checks, calls for help, and the request to stop.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::connections::Token;

/// The inbox of one shard, with an eventfd (the bell) that its epoll set watches.
#[derive(Debug)]
pub(super) struct Inbox {
    // There is at most one for each connection in state Checking, so it is bounded by the queue of checks.
    checked: Mutex<Vec<(Token, bool)>>,
    help_wanted: AtomicBool,
    stopped: AtomicBool,
    bell: OwnedFd,
}

impl Inbox {
    /// Delivers the result of a holder check for the connection `asker`, and wakes its shard.
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
        // A full counter means that the bell is already set.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Asks the shard to help with accepting; returns false if it already does.
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

    /// The eventfd to watch.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Whether the shard should help with accepting.
    pub(super) fn is_help_wanted(&self) -> bool {
        self.help_wanted.load(Ordering::Relaxed)
    }

    /// Notes that the shard has stopped helping.
    pub(super) fn rest(&self) {
        self.help_wanted.store(false, Ordering::Relaxed);
    }

    /// Tells the shard to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Whether the shard was told to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
