//! How far this daemon can trust its own observations.
//!
//! A slow daemon mistakes its own delay for a peer's failure. Lifeguard (A. Dadgar, J. Phillips, J. Currey, "Lifeguard:
//! SWIM-ing with Situational Awareness", 2017, section IV-A) keeps a score for this: it rises whenever this daemon
//! turns out to be at fault, falls with every success, and multiplies all timeouts. The clearest sign needs no network:
//! a timer fires late because the daemon was not running.

use crate::tuning::MembershipTuning;

/// The highest score; timeouts grow up to nine times (Lifeguard: S = 8).
pub const WORST: u32 = 8;

/// This daemon's assessment of its own health.
#[derive(Clone, Debug)]
pub struct Health {
    late_ms: u64,
    score: u32,
    /// How late the last timer was.
    lag_ms: u64,
}

impl Health {
    /// A healthy daemon.
    #[must_use]
    pub fn new(tuning: &MembershipTuning) -> Self {
        Self { late_ms: tuning.late_ms, score: 0, lag_ms: 0 }
    }

    /// A timer that was due at `due_ms` fires at `now_ms`; both are monotonic. Returns how long this daemon has not
    /// been running, or 0 if the timer is on time.
    pub fn timer(&mut self, due_ms: u64, now_ms: u64) -> u64 {
        let lag = now_ms.saturating_sub(due_ms);
        self.lag_ms = if lag > self.late_ms { lag } else { 0 };
        if self.lag_ms > 0 {
            self.worse();
        }
        self.lag_ms
    }

    /// Lowers the health: this daemon was wrongly suspected, or others reached a member that it could not reach.
    pub fn worse(&mut self) {
        self.score = (self.score + 1).min(WORST);
    }

    /// Improves the health: a probe was answered in time.
    pub fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
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
        health.better();
        assert_eq!(health.stretch(500), 500);
    }

    #[test]
    fn the_score_is_bounded() {
        let mut health = Health::new(&MembershipTuning::DEFAULT);
        for _ in 0..100 {
            health.worse();
        }
        assert_eq!(health.score(), WORST);
        for _ in 0..100 {
            health.better();
        }
        assert_eq!(health.score(), 0);
    }
}
