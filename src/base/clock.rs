//! Two clocks that must not be mixed up: the wall clock, which people read and administrators set, and the monotonic one,
//! which durations are measured with.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since the Unix epoch. For showing, never for measuring how long something lasts.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment of the monotonic clock, in milliseconds since the process first asked for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(u64);

impl Monotonic {
    /// This moment.
    #[must_use]
    pub fn now() -> Monotonic {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        Monotonic(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// A moment so many milliseconds after the first.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Monotonic {
        Monotonic(ms)
    }

    /// Milliseconds since the first moment.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        self.0
    }

    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Monotonic {
        Monotonic(self.0.saturating_add(ms))
    }

    /// How long ago that was; nothing for a moment to come.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(Monotonic::now().0.saturating_sub(self.0))
    }
}
