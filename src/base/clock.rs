//! Two clocks with different types: the wall clock, which may be set, for display, and the monotonic clock for
//! durations.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since the Unix epoch. For display, never to measure durations.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The clock that also counts while the host is suspended, in milliseconds since it was booted. All processes of a host
/// share it.
#[must_use]
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000 + nanoseconds.unwrap_or_default() / 1_000_000
}

/// A time on the monotonic clock, in milliseconds since this process first read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The current time.
    #[must_use]
    pub fn now() -> Monotonic {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        Monotonic(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The time `ms` milliseconds after the first one.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Monotonic {
        Monotonic(ms)
    }

    /// Milliseconds since the first time.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        self.0
    }

    /// The time `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Monotonic {
        Monotonic(self.0.saturating_add(ms))
    }

    /// The duration since then; zero for a time in the future.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(Monotonic::now().0.saturating_sub(self.0))
    }
}
