//! Rate limit for log lines that peers can cause, so that a peer cannot fill the log.
//!
//! The first lines of a kind are written immediately. Further lines of that kind are counted until the window is over,
//! and one line then says how many there were. All kinds together share another limit, because a peer may cause a new
//! kind each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use pmd_epmd::rate_limit::{BURST, Decision, PERIOD, RateLimit};

/// How many lines are written.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lines of one kind per [`window`](Self::window).
    pub lines: u32,
    /// How long lines of one kind are counted.
    pub window: Duration,
    /// Maximum number of kinds with their own limit. Lines of further kinds are subject only to the shared limit.
    pub kinds: usize,
    /// Lines of all kinds, and in how long.
    pub all: (u32, Duration),
}

impl Limits {
    /// For lines that say the same each time, such as that a peer was rejected.
    pub const REPETITIONS: Limits =
        Limits { lines: 1, window: Duration::from_secs(10), kinds: 256, all: (BURST, PERIOD) };
    /// For the ups and downs of peers, by peer. A peer that is restarted a few times is logged in full, one that flaps is
    /// not. The shared limit lets a cluster of a thousand through that joins or ends at once.
    pub const CHANGES: Limits = Limits {
        lines: 10,
        window: Duration::from_secs(60),
        kinds: 4_096,
        all: (5_000, Duration::from_secs(10)),
    };
}

/// A limit per kind. The caller passes the time.
#[derive(Debug)]
struct Kinds {
    limits: Limits,
    kinds: BTreeMap<String, RateLimit>,
}

impl Kinds {
    fn new(limits: Limits) -> Kinds {
        Kinds { limits, kinds: BTreeMap::new() }
    }

    fn check(&mut self, now: Instant, kind: &str) -> Decision {
        if let Some(limit) = self.kinds.get_mut(kind) {
            return limit.check(now);
        }
        if self.kinds.len() >= self.limits.kinds {
            self.kinds.retain(|_, limit| !limit.is_idle(now));
        }
        let mut limit = RateLimit::new(now, self.limits.lines, self.limits.window);
        let decision = limit.check(now);
        if self.kinds.len() < self.limits.kinds {
            self.kinds.insert(kind.to_owned(), limit);
        }
        decision
    }

    fn remaining(&self, now: Instant, kind: &str) -> Duration {
        self.kinds.get(kind).map_or(Duration::ZERO, |limit| limit.remaining(now))
    }

    fn sum_up(&mut self, now: Instant, kind: &str) -> Option<u64> {
        self.kinds.get_mut(kind)?.sum_up(now)
    }
}

/// A log with a rate limit per kind of line.
#[derive(Debug)]
pub struct LimitedLog {
    runtime: Handle,
    kinds: Mutex<Kinds>,
    all: Mutex<RateLimit>,
    window: Duration,
}

impl LimitedLog {
    /// Creates a log that writes summaries with tasks on `runtime`.
    pub fn new(runtime: Handle, limits: Limits) -> Arc<LimitedLog> {
        let (lines, period) = limits.all;
        let all = Mutex::new(RateLimit::new(Instant::now(), lines, period));
        let kinds = Mutex::new(Kinds::new(limits));
        Arc::new(LimitedLog { runtime, kinds, all, window: limits.window })
    }

    /// Calls `write` to write a line of this `kind`: now, later with the number of suppressed lines, or never. `write`
    /// appends its argument to the line.
    pub fn line(self: &Arc<Self>, kind: String, write: impl FnOnce(&str) + Send + 'static) {
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = kinds.check(now, &kind);
        let remaining = kinds.remaining(now, &kind);
        drop(kinds);
        match decision {
            Decision::Write { held_back } => self.write(held_back, write),
            Decision::HoldBack { held_back: 1 } => {
                let this = Arc::clone(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep(remaining).await;
                    let mut kinds = this.kinds.lock().unwrap_or_else(PoisonError::into_inner);
                    let held_back = kinds.sum_up(Instant::now(), &kind);
                    drop(kinds);
                    if let Some(held_back) = held_back {
                        this.write(held_back, write);
                    }
                });
            }
            Decision::HoldBack { .. } => {}
        }
    }

    fn write(&self, alike: u64, write: impl FnOnce(&str)) {
        match self.all.lock().unwrap_or_else(PoisonError::into_inner).check(Instant::now()) {
            Decision::HoldBack { .. } => return,
            Decision::Write { held_back: 0 } => {}
            Decision::Write { held_back } => tracing::warn!("{held_back} lines like the next were left out"),
        }
        match alike {
            0 => write(""),
            _ => write(&format!(" ({alike} more like this in {} s)", self.window.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Decision = Decision::Write { held_back: 0 };
    const LIMITS: Limits = Limits::REPETITIONS;
    const WINDOW: Duration = LIMITS.window;
    const KINDS: usize = LIMITS.kinds;

    #[test]
    fn a_line_is_written_once_and_similar_ones_are_counted() {
        let start = Instant::now();
        let mut kinds = Kinds::new(LIMITS);
        assert_eq!(kinds.check(start, "a"), FIRST);
        assert_eq!(kinds.check(start + WINDOW / 4, "a"), Decision::HoldBack { held_back: 1 });
        assert_eq!(kinds.remaining(start + WINDOW / 4, "a"), WINDOW * 3 / 4);
        for held_back in 2..=42 {
            assert_eq!(kinds.check(start + WINDOW / 2, "a"), Decision::HoldBack { held_back });
        }
        assert_eq!(kinds.check(start + WINDOW / 2, "b"), FIRST, "another peer has its own limit");
        assert_eq!(kinds.sum_up(start + WINDOW, "a"), Some(42));
        // The peer continues, so lines are counted again.
        assert_eq!(kinds.check(start + WINDOW, "a"), Decision::HoldBack { held_back: 1 });
        assert_eq!(kinds.remaining(start + WINDOW, "a"), WINDOW);
        assert_eq!(kinds.sum_up(start + 2 * WINDOW, "a"), Some(1));
        // After a quiet window, the next line is written again.
        assert_eq!(kinds.check(start + 3 * WINDOW, "a"), FIRST);
    }

    #[test]
    fn a_line_before_a_late_summary_replaces_it() {
        let start = Instant::now();
        let mut kinds = Kinds::new(LIMITS);
        assert_eq!(kinds.check(start, "a"), FIRST);
        assert_eq!(kinds.check(start, "a"), Decision::HoldBack { held_back: 1 });
        assert_eq!(kinds.check(start + WINDOW, "a"), Decision::Write { held_back: 1 });
        assert_eq!(kinds.sum_up(start + WINDOW, "a"), None);
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let start = Instant::now();
        let mut kinds = Kinds::new(LIMITS);
        for number in 0..10 * KINDS {
            assert_eq!(kinds.check(start, &number.to_string()), FIRST);
        }
        assert_eq!(kinds.kinds.len(), KINDS);
        assert_eq!(kinds.check(start + WINDOW, "new"), FIRST);
        assert_eq!(kinds.kinds.len(), 1);
    }

    #[test]
    fn a_peer_that_flaps_is_counted_after_its_first_changes() {
        let start = Instant::now();
        let mut kinds = Kinds::new(Limits::CHANGES);
        let decisions: Vec<_> = (0..200).map(|_| kinds.check(start, "a")).collect();
        assert!(decisions[..10].iter().all(|decision| *decision == FIRST));
        assert_eq!(decisions[10], Decision::HoldBack { held_back: 1 });
        assert_eq!(kinds.check(start, "b"), FIRST, "another peer has its own limit");
        assert_eq!(kinds.sum_up(start + Limits::CHANGES.window, "a"), Some(190));
    }
}
