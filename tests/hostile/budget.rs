//! The descriptors of the test process, which concurrently running tests share.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A test may claim at most the hard limit divided by this, so that two of the largest can run at a time.
const SHARE: usize = 2;
/// The hard limit divided by this stays unclaimed, for files, logs and single connections.
const UNCLAIMED: usize = 10;

static FREE: Mutex<Option<usize>> = Mutex::new(None);
static RETURNED: Condvar = Condvar::new();

/// Descriptors that belong to one test until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim(usize);

impl Claim {
    /// Claims `wanted` descriptors, or what the hard limit allows one test; waits until they are free.
    pub(crate) fn of(wanted: usize) -> Claim {
        let limit = descriptor_limit();
        let count = wanted.min(limit / SHARE);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = RETURNED
            .wait_while(free, |free| *free.get_or_insert(limit - limit / UNCLAIMED) < count)
            .unwrap_or_else(PoisonError::into_inner);
        *free = free.map(|free| free - count);
        Claim(count)
    }

    /// The number of claimed descriptors.
    pub(crate) fn count(&self) -> usize {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.map(|free| free + self.0);
        RETURNED.notify_all();
    }
}

/// The hard limit of descriptors, to which this process raises its soft limit.
pub(crate) fn descriptor_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raising a soft limit");
        // An unlimited number is more than the tests need.
        maximum.and_then(|maximum| usize::try_from(maximum).ok()).unwrap_or(1 << 20)
    })
}
