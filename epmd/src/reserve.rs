//! One descriptor that is kept for the moment when there is no other.
//!
//! accept(2) cannot even refuse a connection without a descriptor to give it. So when the process has none left,
//! the reserve is given up for one connection, which is served and closed, and taken back. Who accepts meanwhile
//! may have got that very descriptor: as long as the reserve is missing, no connection may stay.

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
    /// Puts a descriptor aside.
    pub fn new() -> Reserve {
        let descriptor = open();
        Reserve { missing: AtomicBool::new(descriptor.is_none()), descriptor: Mutex::new(descriptor) }
    }

    /// Whether it is given up at the moment: whoever has just got a descriptor must not keep it.
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::SeqCst)
    }

    /// Takes it back if it is missing, nobody uses it, and there is a descriptor again.
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

    /// Gives it up while `work` runs. One thread at a time: the others wait.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut descriptor = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        // Said before it is free, so that nobody who gets it can miss it.
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

/// Any descriptor will do. One without a file: in the root directory of a container there may be none.
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
            // Who asks for it meanwhile neither gets it nor waits.
            reserve.restore();
            reserve.is_missing()
        }));
        assert!(!reserve.is_missing());
    }
}
