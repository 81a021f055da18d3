//! The descriptors of the test process, which all tests that run at a time share.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one test may claim at most, as a share of the hard limit: two of the largest can run at a time.
const SHARE: usize = 2;
/// What stays unclaimed for files, logs and single connections, as a share of the hard limit.
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

    /// How many they are.
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

/// How many descriptors a process may have: the hard limit, to which this process is raised.
pub(crate) fn descriptor_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raising a soft limit");
        // No limit at all is more than the tests want.
        maximum.and_then(|maximum| usize::try_from(maximum).ok()).unwrap_or(1 << 20)
    })
}
