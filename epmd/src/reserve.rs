//! A descriptor held in reserve for when the process has no other left.
//!
//! Without a free descriptor, accept(2) fails, so a connection cannot even be closed. When the process runs out, the
//! reserve is released for one connection, which is served and closed, and then taken back. Another thread that accepts
//! in the meantime may have obtained this very descriptor, so no connection may stay open while the reserve is missing.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use rustix::event::{EventfdFlags, eventfd};

/// The reserve of a process.
#[derive(Debug)]
pub struct Reserve {
    descriptor: Mutex<Option<OwnedFd>>,
    missing: AtomicBool,
}

impl Reserve {
    /// Reserves a descriptor.
    pub fn new() -> Reserve {
        let descriptor = open();
        Reserve { missing: AtomicBool::new(descriptor.is_none()), descriptor: Mutex::new(descriptor) }
    }

    /// Whether the reserve is currently released, so that a newly obtained descriptor must not be kept.
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::SeqCst)
    }

    /// Takes the reserve back if it is missing and not in use, and a descriptor is free again.
    pub fn restore(&self) {
        let mut descriptor = match self.descriptor.try_lock() {
            Ok(descriptor) => descriptor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if descriptor.is_none() {
            *descriptor = open();
            self.missing.store(descriptor.is_none(), Ordering::SeqCst);
        }
    }

    /// Releases the reserve while `work` runs. Only one thread can do so at a time; the others wait.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut descriptor = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        // Set before the descriptor is free, so that the thread that obtains it cannot miss this.
        self.missing.store(true, Ordering::SeqCst);
        drop(descriptor.take());
        let value = work();
        *descriptor = open();
        self.missing.store(descriptor.is_none(), Ordering::SeqCst);
        value
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve::new()
    }
}

/// Any descriptor will do. It needs no file, because a container's root directory may be empty.
fn open() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_missing_while_it_is_lent_and_comes_back() {
        let reserve = Reserve::new();
        assert!(!reserve.is_missing());
        assert!(reserve.lend(|| {
            // A concurrent call neither gets the descriptor nor waits.
            reserve.restore();
            reserve.is_missing()
        }));
        assert!(!reserve.is_missing());
    }
}
