//! How far this daemon can trust its own observations.
//!
//! A slow daemon mistakes its own delay for a peer's failure. Lifeguard (A. Dadgar, J. Phillips, J. Currey, "Lifeguard:
//! SWIM-ing with Situational Awareness", 2017, section IV-A) keeps a score for this: it rises whenever this daemon
//! turns out to be at fault, falls with success, and multiplies all timeouts. The clearest sign needs no network: a timer
//! fires late because the daemon was not running.
//!
//! In Lifeguard a success is an answered probe, of which there is one per period. Here it is a prompt answer on a link as
//! well, and a daemon has many links, so the score falls by at most one per probe period.

use crate::tuning::MembershipTuning;

/// The highest score; timeouts grow up to nine times (Lifeguard: S = 8).
pub const WORST: u32 = 8;

/// This daemon's assessment of its own health.
#[derive(Clone, Debug)]
pub struct Health {
    late_ms: u64,
    period_ms: u64,
    score: u32,
    /// When the score may fall again.
    next_better_ms: u64,
    /// How late the last timer was.
    lag_ms: u64,
}

impl Health {
    /// A healthy daemon.
    #[must_use]
    pub fn new(tuning: &MembershipTuning) -> Self {
        let (late_ms, period_ms) = (tuning.late_ms, tuning.probe_period_ms);
        Self { late_ms, period_ms, score: 0, next_better_ms: 0, lag_ms: 0 }
    }

    /// A timer that was due at `due_ms` fires at `now_ms`; both are monotonic. Returns how long this daemon has not
    /// been running, or 0 if the timer is on time.
    pub fn timer(&mut self, due_ms: u64, now_ms: u64) -> u64 {
        let lag = now_ms.saturating_sub(due_ms);
        self.lag_ms = if lag > self.late_ms { lag } else { 0 };
        if self.lag_ms > 0 {
            self.worse();
            self.next_better_ms = now_ms.saturating_add(self.period_ms);
        }
        self.lag_ms
    }

    /// Lowers the health: this daemon was wrongly suspected, others reached a member that it could not reach, or helpers
    /// did not answer it.
    pub fn worse(&mut self) {
        self.score = (self.score + 1).min(WORST);
    }

    /// Improves the health: a peer has answered in time, and this daemon has read it in time.
    pub fn better(&mut self, now_ms: u64) {
        if self.score > 0 && self.next_better_ms <= now_ms {
            self.score -= 1;
            self.next_better_ms = now_ms.saturating_add(self.period_ms);
        }
    }

    /// Whether this daemon may suspect others at the moment.
    #[must_use]
    pub fn may_suspect(&self) -> bool {
        self.lag_ms == 0
    }

    /// The score, from 0 (healthy) to [`WORST`].
    #[must_use]
    pub fn score(&self) -> u32 {
        self.score
    }

    /// The part of a limit that this daemon may use up: what it starts adds to the load that makes it slow.
    #[must_use]
    pub fn share(&self, most: usize) -> usize {
        most / (self.score as usize + 1)
    }

    /// Stretches a timeout according to the score.
    #[must_use]
    pub fn stretch(&self, wait_ms: u64) -> u64 {
        wait_ms.saturating_mul(u64::from(self.score) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_daemon_suspects_nobody_and_waits_longer() {
        let mut health = Health::new(&MembershipTuning::DEFAULT);
        assert_eq!(health.timer(1_000, 1_150), 0);
        assert!(health.may_suspect());
        assert_eq!(health.stretch(500), 500);
        assert_eq!(health.timer(2_000, 9_000), 7_000);
        assert!(!health.may_suspect());
        assert_eq!(health.stretch(500), 1_000);
        assert_eq!(health.timer(9_100, 9_100), 0);
        assert!(health.may_suspect(), "one tick later");
        assert_eq!(health.stretch(500), 1_000, "but with longer timeouts than before");
        health.better(9_900);
        assert_eq!(health.stretch(500), 1_000, "not yet");
        health.better(10_000);
        assert_eq!(health.stretch(500), 500);
    }

    #[test]
    fn the_score_is_bounded() {
        let mut health = Health::new(&MembershipTuning::DEFAULT);
        for _ in 0..100 {
            health.worse();
        }
        assert_eq!(health.score(), WORST);
        assert_eq!(health.share(64), 7);
        for _ in 0..100 {
            health.better(5_000);
        }
        assert_eq!(health.score(), WORST - 1, "many answers at once are one sign");
        (6..100).for_each(|second| health.better(second * 1_000));
        assert_eq!(health.score(), 0);
    }
}
