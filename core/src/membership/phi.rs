//! How surprising a peer's silence is.
//!
//! The phi accrual failure detector (N. Hayashibara, X. Défago, R. Yared, T. Katayama, "The φ Accrual Failure
//! Detector", 2004): from the intervals between past heartbeats it estimates the chance that a heartbeat still comes
//! after this long a silence. Phi is minus its decimal logarithm, so phi 8 means a chance of 10^-8. Intervals are taken
//! for normally distributed; the tail is computed with the logistic approximation that Akka uses (S. R. Bowling et al.,
//! "A Logistic Approximation to the Cumulative Normal Distribution", 2009).
//!
//! It is a bad judge of a peer that is paused on purpose, and of the first few heartbeats. Here it never judges: it
//! says when somebody has to look. Looking is cheap and harms nobody, so that is already at half the threshold: what
//! others see is known by the time phi gets there.
//!
//! Not all links have the same pace, and a link's pace changes when its ends become neighbours in the overlay or cease
//! to be. A heartbeat therefore says when the next will come, and everything here is about how late it is: a silence is
//! counted as if it had been promised at the usual interval.

use std::collections::VecDeque;

use crate::tuning::PhiTuning;

/// The heartbeats of one peer.
#[derive(Clone, Debug)]
pub struct Phi {
    tuning: PhiTuning,
    intervals: VecDeque<u64>,
    sum: u64,
    squares: u128,
    /// The last heartbeat.
    last_ms: u64,
    /// Since when silence counts: the last heartbeat, or later if this daemon could not listen.
    since_ms: u64,
    /// When the next heartbeat is promised, after the last.
    promised_ms: u64,
    /// How many deviations above the mean phi is at half its threshold.
    deviations: f64,
    /// How long a silence may be before somebody has to look.
    patience_ms: u64,
}

impl Phi {
    /// Begins to listen. `now_ms` is monotonic.
    ///
    /// Until heartbeats have come, the estimate rests on the interval at which they should.
    #[must_use]
    pub fn new(tuning: PhiTuning, now_ms: u64) -> Self {
        let mut phi = Self {
            tuning,
            intervals: VecDeque::new(),
            sum: 0,
            squares: 0,
            last_ms: now_ms,
            since_ms: now_ms,
            promised_ms: tuning.interval_ms,
            deviations: deviations(tuning.threshold / 2.0),
            patience_ms: 0,
        };
        // Two intervals that are a quarter off to each side (Akka: `firstHeartbeatEstimate`).
        let quarter = tuning.interval_ms / 4;
        phi.add(tuning.interval_ms.saturating_sub(quarter));
        phi.add(tuning.interval_ms.saturating_add(quarter));
        phi.patience_ms = phi.patience();
        phi
    }

    /// A heartbeat, which promises the next in `promised_ms`.
    pub fn heartbeat(&mut self, now_ms: u64, promised_ms: u64) {
        self.add(self.usual(now_ms));
        self.last_ms = now_ms;
        self.since_ms = now_ms;
        self.promised_ms = promised_ms;
        self.patience_ms = self.patience();
    }

    /// This daemon was not running until now, or has begun to look into it: the silence so far does not count.
    pub fn forgive(&mut self, now_ms: u64) {
        self.since_ms = self.since_ms.max(now_ms);
    }

    /// Monotonic milliseconds of the last heartbeat.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// Whether the last heartbeat has kept its promise so far, or nearly.
    #[must_use]
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        let most = self.promised_ms.saturating_add(self.tuning.min_deviation_ms);
        now_ms.saturating_sub(self.last_ms) <= most
    }

    /// How surprising the silence is by now.
    #[must_use]
    pub fn phi(&self, now_ms: u64) -> f64 {
        let (mean, deviation) = self.estimate();
        tail((float(u128::from(self.usual(now_ms))) - mean) / deviation)
    }

    /// When somebody has to look if nothing comes: phi is at half its threshold. Monotonic milliseconds.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        let late = self.patience_ms.saturating_add(self.promised_ms).saturating_sub(self.tuning.interval_ms);
        self.since_ms.saturating_add(late)
    }

    /// The silence until `now_ms` as it would be if heartbeats had been promised at the usual interval.
    fn usual(&self, now_ms: u64) -> u64 {
        let silence = now_ms.saturating_sub(self.since_ms);
        silence.saturating_add(self.tuning.interval_ms).saturating_sub(self.promised_ms)
    }

    /// Mean and standard deviation in milliseconds.
    fn estimate(&self) -> (f64, f64) {
        let count = float(self.intervals.len() as u128).max(1.0);
        let mean = float(u128::from(self.sum)) / count;
        let variance = (float(self.squares) / count - mean * mean).max(0.0);
        (mean, variance.sqrt().max(float(u128::from(self.tuning.min_deviation_ms))).max(1.0))
    }

    fn patience(&self) -> u64 {
        let (mean, deviation) = self.estimate();
        // Rounding decides about the last millisecond.
        let near = whole(mean + self.deviations * deviation).saturating_sub(1);
        let is_enough = |silence: &u64| {
            tail((float(u128::from(*silence)) - mean) / deviation) >= self.tuning.threshold / 2.0
        };
        (near..near.saturating_add(4)).find(is_enough).unwrap_or(near)
    }

    fn add(&mut self, interval: u64) {
        // A day bounds the sums; whoever was silent for longer was gone.
        let interval = interval.min(86_400_000);
        self.intervals.push_back(interval);
        self.sum += interval;
        self.squares += u128::from(interval).pow(2);
        while self.intervals.len() > self.tuning.window.max(2) {
            let Some(old) = self.intervals.pop_front() else { return };
            self.sum -= old;
            self.squares -= u128::from(old).pow(2);
        }
    }
}

/// Phi of a silence that is `y` deviations longer than the mean.
fn tail(y: f64) -> f64 {
    let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
    if y > 0.0 { -(e / (1.0 + e)).log10() } else { -(1.0 - 1.0 / (1.0 + e)).log10() }
}

/// How many deviations above the mean a silence is of this phi, which only grows with it.
fn deviations(phi: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if tail(middle) < phi { low = middle } else { high = middle }
    }
    high
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of a day, squared, are exact enough")]
fn float(value: u128) -> f64 {
    value as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, which is what is wanted"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const TUNING: PhiTuning = PhiTuning::DEFAULT;

    #[test]
    fn follows_the_normal_distribution() {
        // One-sided tails of the normal distribution: 2.28e-2 at two deviations, 3.17e-5 at four. The approximation
        // falls a little faster far out.
        assert!((tail(0.0) - 0.301).abs() < 1e-3);
        assert!((tail(2.0) - 1.642).abs() < 0.01);
        assert!((tail(4.0) - 4.499).abs() < 0.3);
        assert!(tail(-3.0) < 1e-3);
    }

    #[test]
    fn regular_heartbeats_give_the_least_deviation() {
        let mut phi = Phi::new(TUNING, 0);
        for beat in 1..=2_000 {
            phi.heartbeat(beat * 1_000, 1_000);
        }
        assert!(phi.phi(2_001_000) < 0.4, "on time");
        // Phi 8 is 5.2 deviations of 500 ms by the approximation, 5.6 without; phi 4 is 3.7.
        assert!(phi.phi(2_003_500) < 8.0 && phi.phi(2_003_900) > 8.0);
        let deadline = phi.deadline() - 2_000_000;
        assert!((2_700..3_000).contains(&deadline), "{deadline}");
    }

    #[test]
    fn an_irregular_peer_gets_more_time() {
        let mut phi = Phi::new(TUNING, 0);
        let mut now = 0;
        for beat in 0..1_000 {
            now += if beat % 2 == 0 { 200 } else { 4_000 };
            phi.heartbeat(now, 1_000);
        }
        assert!(phi.deadline() - now > 8_000, "{}", phi.deadline() - now);
    }

    #[test]
    fn what_is_forgiven_was_not_heard() {
        let mut phi = Phi::new(TUNING, 0);
        phi.heartbeat(1_000, 1_000);
        let deadline = phi.deadline();
        phi.forgive(deadline);
        assert_eq!((phi.last_ms(), phi.deadline()), (1_000, 2 * deadline - 1_000));
    }

    #[test]
    fn a_promise_is_taken_at_its_word() {
        let (mut slow, mut now) = (Phi::new(TUNING, 0), 0);
        for beat in 0..100 {
            now += 1_000 + u64::from(beat > 50) * 4_000;
            slow.heartbeat(now, 1_000 + u64::from(beat >= 50) * 4_000);
        }
        assert!(slow.phi(now + 5_000) < 0.4, "on time");
        let deadline = slow.deadline() - now;
        assert!((6_700..7_000).contains(&deadline), "{deadline}");
        slow.heartbeat(now + 5_000, 1_000);
        let deadline = slow.deadline() - now - 5_000;
        assert!((2_700..3_000).contains(&deadline), "{deadline}");
    }

    proptest! {
        #[test]
        fn the_deadline_is_when_somebody_has_to_look(gaps in vec((0..20_000_u64, 0..9_000_u64), 0..50), window in 2..40_usize) {
            let tuning = PhiTuning { window, ..TUNING };
            let (mut phi, mut now) = (Phi::new(tuning, 0), 0);
            for (gap, promised) in gaps {
                now += gap;
                phi.heartbeat(now, promised);
            }
            let deadline = phi.deadline();
            prop_assert!(deadline == now || phi.phi(deadline) >= tuning.threshold / 2.0);
            prop_assert!(deadline == now || phi.phi(deadline - 1) < tuning.threshold / 2.0);
            prop_assert!(phi.phi(now) <= phi.phi(now + 1_000));
        }

        #[test]
        fn the_window_is_bounded_and_its_sums_are_exact(gaps in vec(0..200_000_000_u64, 0..60), window in 2..20_usize) {
            let (mut phi, mut now) = (Phi::new(PhiTuning { window, ..TUNING }, 0), 0);
            for gap in gaps {
                now += gap;
                phi.heartbeat(now, 1_000);
                prop_assert!(phi.intervals.len() <= window);
                prop_assert_eq!(phi.sum, phi.intervals.iter().sum::<u64>());
                prop_assert_eq!(phi.squares, phi.intervals.iter().map(|i| u128::from(*i).pow(2)).sum::<u128>());
            }
        }
    }
}
