//! Keeps a flood of bad requests from becoming a flood of log lines.

use std::time::{Duration, Instant};

/// Lines that may pass in one [`PERIOD`].
const BURST: u32 = 20;
/// How long the allowance lasts.
const PERIOD: Duration = Duration::from_secs(1);

/// Lets a burst of lines through per second and counts the rest. The time is handed in.
#[derive(Debug)]
pub struct LogLimit {
    since: Instant,
    passed: u32,
    held_back: u64,
}

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Write,
    /// Write it, and that this many were left out before it.
    WriteAfter(u64),
    /// Leave it out.
    LeaveOut,
}

impl LogLimit {
    /// A limit whose first period starts at `now`.
    pub fn new(now: Instant) -> LogLimit {
        LogLimit { since: now, passed: 0, held_back: 0 }
    }

    /// Asks for one line at `now`.
    pub fn check(&mut self, now: Instant) -> Verdict {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.passed = 0;
        }
        if self.passed == BURST {
            self.held_back += 1;
            return Verdict::LeaveOut;
        }
        self.passed += 1;
        match std::mem::take(&mut self.held_back) {
            0 => Verdict::Write,
            left_out => Verdict::WriteAfter(left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut limit = LogLimit::new(start);
        for _ in 0..BURST {
            assert_eq!(limit.check(start), Verdict::Write);
        }
        for _ in 0..7 {
            assert_eq!(limit.check(start), Verdict::LeaveOut);
        }
        assert_eq!(limit.check(start + PERIOD), Verdict::WriteAfter(7));
        assert_eq!(limit.check(start + PERIOD), Verdict::Write);
    }
}
