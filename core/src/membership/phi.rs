//! The phi accrual failure detector: how surprising a peer's silence is.
//!
//! It estimates, from the intervals between past heartbeats, the probability that a heartbeat still arrives after a
//! silence of this length (N. Hayashibara, X. Défago, R. Yared, T. Katayama, "The φ Accrual Failure Detector", 2004).
//! Phi is the negative decimal logarithm of this probability, so phi 8 means 10^-8. Intervals are assumed to be
//! normally distributed, and the tail is computed with the logistic approximation that Akka uses (S. R. Bowling et al.,
//! "A Logistic Approximation to the Cumulative Normal Distribution", 2009).
//!
//! The estimate is poor for a peer that is deliberately paused, and for the first few heartbeats. pmd therefore never
//! declares a peer dead by phi alone; phi only decides when to probe a peer. Probes are cheap and harmless, so they
//! start at half the threshold, and their results are in by the time phi reaches it.
//!
//! Heartbeat intervals differ between links, and change when the two ends become neighbours in the overlay or cease to
//! be. Each heartbeat therefore announces when to expect the next, and the estimate is about lateness: a silence counts
//! as if the next heartbeat had been announced for the usual interval.

use std::collections::VecDeque;

use crate::tuning::PhiTuning;

/// The heartbeats of one peer.
#[derive(Clone, Debug)]
pub struct Phi {
    tuning: PhiTuning,
    intervals: VecDeque<u64>,
    sum: u64,
    squares: u128,
    /// When the last heartbeat arrived.
    last_ms: u64,
    /// When the current silence began: at the last heartbeat, or later if this daemon was not running.
    since_ms: u64,
    /// The announced interval between the last heartbeat and the next.
    announced_ms: u64,
    /// How many deviations above the mean phi reaches half its threshold.
    deviations: f64,
    /// The silence after which the peer must be probed.
    tolerance_ms: u64,
}

impl Phi {
    /// The detector of a new link. `now_ms` is monotonic.
    ///
    /// Until heartbeats arrive, the estimate assumes the configured interval.
    #[must_use]
    pub fn new(tuning: PhiTuning, now_ms: u64) -> Self {
        let mut phi = Self {
            tuning,
            intervals: VecDeque::new(),
            sum: 0,
            squares: 0,
            last_ms: now_ms,
            since_ms: now_ms,
            announced_ms: tuning.interval_ms,
            deviations: deviations(tuning.threshold / 2.0),
            tolerance_ms: 0,
        };
        // Two intervals, a quarter shorter and a quarter longer (Akka: `firstHeartbeatEstimate`).
        let quarter = tuning.interval_ms / 4;
        phi.add(tuning.interval_ms.saturating_sub(quarter));
        phi.add(tuning.interval_ms.saturating_add(quarter));
        phi.tolerance_ms = phi.tolerance();
        phi
    }

    /// Records a heartbeat that announces the next one in `announced_ms`.
    pub fn heartbeat(&mut self, now_ms: u64, announced_ms: u64) {
        self.add(self.usual(now_ms));
        self.last_ms = now_ms;
        self.since_ms = now_ms;
        self.announced_ms = announced_ms;
        self.tolerance_ms = self.tolerance();
    }

    /// Restarts the current silence, because this daemon was not running until now or has started to probe the peer.
    pub fn restart_silence(&mut self, now_ms: u64) {
        self.since_ms = self.since_ms.max(now_ms);
    }

    /// When the last heartbeat arrived; monotonic milliseconds.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// Whether the next heartbeat is not overdue, or only slightly.
    #[must_use]
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        let most = self.announced_ms.saturating_add(self.tuning.min_deviation_ms);
        now_ms.saturating_sub(self.last_ms) <= most
    }

    /// Phi of the current silence.
    #[must_use]
    pub fn phi(&self, now_ms: u64) -> f64 {
        let (mean, deviation) = self.estimate();
        tail((float(u128::from(self.usual(now_ms))) - mean) / deviation)
    }

    /// When phi reaches half its threshold, so that the peer must be probed unless a heartbeat arrives; monotonic
    /// milliseconds.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        let late =
            self.tolerance_ms.saturating_add(self.announced_ms).saturating_sub(self.tuning.interval_ms);
        self.since_ms.saturating_add(late)
    }

    /// The silence until `now_ms`, as if the next heartbeat had been announced for the usual interval.
    fn usual(&self, now_ms: u64) -> u64 {
        let silence = now_ms.saturating_sub(self.since_ms);
        silence.saturating_add(self.tuning.interval_ms).saturating_sub(self.announced_ms)
    }

    /// Mean and standard deviation in milliseconds.
    fn estimate(&self) -> (f64, f64) {
        let count = float(self.intervals.len() as u128).max(1.0);
        let mean = float(u128::from(self.sum)) / count;
        let variance = (float(self.squares) / count - mean * mean).max(0.0);
        (mean, variance.sqrt().max(float(u128::from(self.tuning.min_deviation_ms))).max(1.0))
    }

    fn tolerance(&self) -> u64 {
        let (mean, deviation) = self.estimate();
        // Rounding may be off by a millisecond.
        let near = whole(mean + self.deviations * deviation).saturating_sub(1);
        let is_enough = |silence: &u64| {
            tail((float(u128::from(*silence)) - mean) / deviation) >= self.tuning.threshold / 2.0
        };
        (near..near.saturating_add(4)).find(is_enough).unwrap_or(near)
    }

    fn add(&mut self, interval: u64) {
        // A limit of one day keeps the sums from overflowing; a peer silent for longer was dead.
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

/// The inverse of [`tail`], which is monotonic: how many deviations above the mean a silence of this phi is.
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

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturation is intended")]
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
    fn a_restarted_silence_is_not_a_heartbeat() {
        let mut phi = Phi::new(TUNING, 0);
        phi.heartbeat(1_000, 1_000);
        let deadline = phi.deadline();
        phi.restart_silence(deadline);
        assert_eq!((phi.last_ms(), phi.deadline()), (1_000, 2 * deadline - 1_000));
    }

    #[test]
    fn lateness_is_relative_to_the_announced_interval() {
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
        fn the_deadline_is_at_half_the_threshold(gaps in vec((0..20_000_u64, 0..9_000_u64), 0..50), window in 2..40_usize) {
            let tuning = PhiTuning { window, ..TUNING };
            let (mut phi, mut now) = (Phi::new(tuning, 0), 0);
            for (gap, announced) in gaps {
                now += gap;
                phi.heartbeat(now, announced);
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
