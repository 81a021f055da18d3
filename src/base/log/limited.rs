//! Log lines about peers, of which one that does the same again and again causes few.
//!
//! The first line of its kind is written at once. Those like it are counted for ten seconds, and then written as one that
//! says how many they were. What differs each time is bounded by [`LogLimit`] all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use pmd_epmd::rate_limit::{LogLimit, Verdict};

/// For how long lines of one kind are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that are told apart at a time; those beyond are bounded together.
const KINDS: usize = 256;

/// Which lines were written lately, and how many like them were not. The time is handed in.
#[derive(Debug, Default)]
struct Repeats(BTreeMap<String, Window>);

#[derive(Debug)]
struct Window {
    end: Instant,
    held_back: u64,
}

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Write it: it is the first.
    First,
    /// It is counted, as the first of its window: ask for the number in so long.
    Second(Duration),
    /// It is counted.
    Another,
}

impl Repeats {
    fn check(&mut self, now: Instant, kind: &str) -> Repeat {
        if let Some(window) = self.0.get_mut(kind).filter(|window| window.end > now || window.held_back > 0) {
            window.held_back += 1;
            return match window.held_back {
                1 => Repeat::Second(window.end.saturating_duration_since(now)),
                _ => Repeat::Another,
            };
        }
        if self.0.len() >= KINDS {
            // Those that are counted are still to be told of.
            self.0.retain(|_, window| window.end > now || window.held_back > 0);
        }
        if self.0.len() < KINDS {
            self.0.insert(kind.to_owned(), Window { end: now + WINDOW, held_back: 0 });
        }
        Repeat::First
    }

    /// How many were counted; a new window begins.
    fn tell(&mut self, now: Instant, kind: &str) -> u64 {
        let Some(window) = self.0.get_mut(kind) else { return 0 };
        window.end = now + WINDOW;
        std::mem::take(&mut window.held_back)
    }
}

/// Writes such lines.
#[derive(Debug)]
pub struct Complaints {
    runtime: Handle,
    repeats: Mutex<Repeats>,
    limit: Mutex<LogLimit>,
}

impl Complaints {
    /// Nothing was complained of yet.
    pub fn new(runtime: Handle) -> Arc<Complaints> {
        let limit = Mutex::new(LogLimit::new(Instant::now()));
        Arc::new(Complaints { runtime, repeats: Mutex::default(), limit })
    }

    /// Complains of something: `write` writes the line, with what it is given at its end, now or later or not at all.
    /// Lines are alike if their `kind` is the same.
    pub fn say(self: &Arc<Self>, kind: String, write: impl FnOnce(&str) + Send + 'static) {
        let now = Instant::now();
        match self.repeats.lock().unwrap_or_else(PoisonError::into_inner).check(now, &kind) {
            Repeat::Another => {}
            Repeat::First => self.write("", write),
            Repeat::Second(wait) => {
                let this = Arc::clone(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    let mut repeats = this.repeats.lock().unwrap_or_else(PoisonError::into_inner);
                    let count = repeats.tell(Instant::now(), &kind);
                    drop(repeats);
                    this.write(&format!(" ({count} more like this in {} s)", WINDOW.as_secs()), write);
                });
            }
        }
    }

    fn write(&self, more: &str, write: impl FnOnce(&str)) {
        match self.limit.lock().unwrap_or_else(PoisonError::into_inner).check(Instant::now()) {
            Verdict::LeaveOut => return,
            Verdict::Write => {}
            Verdict::WriteAfter(left_out) => tracing::warn!("{left_out} lines like the next were left out"),
        }
        write(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_and_those_like_it_are_counted() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.check(start, "a"), Repeat::First);
        assert_eq!(repeats.check(start + WINDOW / 4, "a"), Repeat::Second(WINDOW * 3 / 4));
        for _ in 0..41 {
            assert_eq!(repeats.check(start + WINDOW / 2, "a"), Repeat::Another);
        }
        assert_eq!(repeats.check(start + WINDOW / 2, "b"), Repeat::First, "another peer has its own");
        assert_eq!(repeats.tell(start + WINDOW, "a"), 42);
        // It goes on.
        assert_eq!(repeats.check(start + WINDOW, "a"), Repeat::Second(WINDOW));
        assert_eq!(repeats.tell(start + 2 * WINDOW, "a"), 1);
        // It has been quiet since.
        assert_eq!(repeats.check(start + 3 * WINDOW, "a"), Repeat::First);
    }

    #[test]
    fn kinds_without_end_take_no_memory_without_end() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        for number in 0..10 * KINDS {
            assert_eq!(repeats.check(start, &number.to_string()), Repeat::First);
        }
        assert_eq!(repeats.0.len(), KINDS);
        assert_eq!(repeats.check(start + WINDOW, "new"), Repeat::First);
        assert_eq!(repeats.0.len(), 1);
    }
}
