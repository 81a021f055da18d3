//! Rate limit for log lines that peers can cause, so that a peer cannot fill the log.
//!
//! The first line of a kind is written immediately. Further lines of that kind are counted for ten seconds, and one
//! line then says how many there were. All kinds together share another limit, because a peer may cause a new kind each
//! time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use pmd_epmd::rate_limit::{BURST, Decision, PERIOD, RateLimit};

/// How long lines of one kind are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Maximum number of kinds with their own limit. Lines of further kinds are subject only to the shared limit.
const KINDS: usize = 256;

/// A limit of one line per [`WINDOW`] and kind. The caller passes the time.
#[derive(Debug, Default)]
struct Kinds(BTreeMap<String, RateLimit>);

impl Kinds {
    fn check(&mut self, now: Instant, kind: &str) -> Decision {
        if let Some(limit) = self.0.get_mut(kind) {
            return limit.check(now);
        }
        if self.0.len() >= KINDS {
            self.0.retain(|_, limit| !limit.is_idle(now));
        }
        let mut limit = RateLimit::new(now, 1, WINDOW);
        let decision = limit.check(now);
        if self.0.len() < KINDS {
            self.0.insert(kind.to_owned(), limit);
        }
        decision
    }

    fn remaining(&self, now: Instant, kind: &str) -> Duration {
        self.0.get(kind).map_or(Duration::ZERO, |limit| limit.remaining(now))
    }

    fn sum_up(&mut self, now: Instant, kind: &str) -> Option<u64> {
        self.0.get_mut(kind)?.sum_up(now)
    }
}

/// A log with a rate limit per kind of line.
#[derive(Debug)]
pub struct LimitedLog {
    runtime: Handle,
    kinds: Mutex<Kinds>,
    all: Mutex<RateLimit>,
}

impl LimitedLog {
    /// Creates a log that writes summaries with tasks on `runtime`.
    pub fn new(runtime: Handle) -> Arc<LimitedLog> {
        let all = Mutex::new(RateLimit::new(Instant::now(), BURST, PERIOD));
        Arc::new(LimitedLog { runtime, kinds: Mutex::default(), all })
    }

    /// Calls `write` to write a line of this `kind`: now, later with the number of suppressed lines, or never. `write`
    /// appends its argument to the line.
    pub fn warn(self: &Arc<Self>, kind: String, write: impl FnOnce(&str) + Send + 'static) {
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
            _ => write(&format!(" ({alike} more like this in {} s)", WINDOW.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Decision = Decision::Write { held_back: 0 };

    #[test]
    fn a_line_is_written_once_and_similar_ones_are_counted() {
        let start = Instant::now();
        let mut kinds = Kinds::default();
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
        let mut kinds = Kinds::default();
        assert_eq!(kinds.check(start, "a"), FIRST);
        assert_eq!(kinds.check(start, "a"), Decision::HoldBack { held_back: 1 });
        assert_eq!(kinds.check(start + WINDOW, "a"), Decision::Write { held_back: 1 });
        assert_eq!(kinds.sum_up(start + WINDOW, "a"), None);
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let start = Instant::now();
        let mut kinds = Kinds::default();
        for number in 0..10 * KINDS {
            assert_eq!(kinds.check(start, &number.to_string()), FIRST);
        }
        assert_eq!(kinds.0.len(), KINDS);
        assert_eq!(kinds.check(start + WINDOW, "new"), FIRST);
        assert_eq!(kinds.0.len(), 1);
    }
}
