//! A rate limit for log lines: it allows a burst in each period and counts the suppressed lines.
//!
//! It only decides. It reads no clock and writes nothing, so it is cheap enough for a hot path.

use std::time::{Duration, Instant};

/// The number of log lines that bad input may cause per [`PERIOD`].
pub const BURST: u32 = 20;
/// The period of [`BURST`].
pub const PERIOD: Duration = Duration::from_secs(1);

/// Allows a burst of lines in each period and counts the suppressed ones.
#[derive(Debug, Clone)]
pub struct RateLimit {
    burst: u32,
    period: Duration,
    since: Instant,
    passed: u32,
    held_back: u64,
}

/// The decision on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write it.
    Write {
        /// The number of lines suppressed since the last written one.
        held_back: u64,
    },
    /// Do not write it.
    HoldBack {
        /// The number of lines suppressed since the last written one, including this one.
        held_back: u64,
    },
}

impl RateLimit {
    /// Allows `burst` lines in each `period`; the first period starts at `now`.
    pub fn new(now: Instant, burst: u32, period: Duration) -> RateLimit {
        RateLimit { burst, period, since: now, passed: 0, held_back: 0 }
    }

    /// Decides on a line at `now`.
    pub fn check(&mut self, now: Instant) -> Decision {
        if self.remaining(now).is_zero() {
            self.since = now;
            self.passed = 0;
        }
        if self.passed >= self.burst {
            self.held_back = self.held_back.saturating_add(1);
            return Decision::HoldBack { held_back: self.held_back };
        }
        self.passed += 1;
        Decision::Write { held_back: std::mem::take(&mut self.held_back) }
    }

    /// Returns the number of lines suppressed in a period that is over, if any. The caller must write a summary, which
    /// counts as the first line of a new period.
    pub fn sum_up(&mut self, now: Instant) -> Option<u64> {
        if self.held_back == 0 || !self.remaining(now).is_zero() {
            return None;
        }
        self.since = now;
        self.passed = 1;
        Some(std::mem::take(&mut self.held_back))
    }

    /// The time that remains of the current period at `now`.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.period.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// Whether this limit can be dropped at `now` without losing information: its period is over and suppressed
    /// nothing.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.held_back == 0 && self.remaining(now).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start, BURST, PERIOD);
        for _ in 0..BURST {
            assert_eq!(limit.check(start), Decision::Write { held_back: 0 });
        }
        for held_back in 1..=7 {
            assert_eq!(limit.check(start), Decision::HoldBack { held_back });
        }
        assert!(!limit.is_idle(start + PERIOD));
        assert_eq!(limit.check(start + PERIOD), Decision::Write { held_back: 7 });
        assert_eq!(limit.check(start + PERIOD), Decision::Write { held_back: 0 });
        assert!(!limit.is_idle(start + PERIOD));
        assert!(limit.is_idle(start + 2 * PERIOD));
    }

    #[test]
    fn a_summary_comes_after_the_period_and_begins_the_next() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start, 1, PERIOD);
        assert_eq!(limit.check(start), Decision::Write { held_back: 0 });
        assert_eq!(limit.sum_up(start + PERIOD), None, "nothing was suppressed");
        assert_eq!(limit.check(start + PERIOD / 2), Decision::HoldBack { held_back: 1 });
        assert_eq!(limit.remaining(start + PERIOD / 2), PERIOD / 2);
        assert_eq!(limit.sum_up(start + PERIOD / 2), None, "the period is not over");
        assert_eq!(limit.sum_up(start + PERIOD), Some(1));
        assert_eq!(limit.check(start + PERIOD), Decision::HoldBack { held_back: 1 });
        assert_eq!(limit.check(start + 2 * PERIOD), Decision::Write { held_back: 1 });
    }
}
