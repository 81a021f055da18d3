//! Exponential back-off: the pause before a retry doubles with each consecutive failure.

use std::time::Duration;

use rand::{Rng, RngExt};

/// A back-off with pauses from `first` to `longest`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Creates a back-off with pauses of `first`, twice `first` and so on, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest }
    }

    /// The pause after this many consecutive failures; after none, the same as after one.
    pub fn pause(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The pause with jitter: up to a half of it is subtracted, so that many clients that failed together do not retry
    /// together.
    pub fn random_pause(self, failures: u32, rng: &mut impl Rng) -> Duration {
        let pause = self.pause(failures);
        rng.random_range(pause / 2..=pause)
    }

    /// The longest pause.
    pub const fn longest(self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|failures| BACKOFF.pause(failures).as_secs());
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let extreme = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(extreme.pause(u32::MAX), Duration::MAX);
    }

    #[test]
    fn random_pauses_differ() {
        let pause = |seed| BACKOFF.random_pause(7, &mut StdRng::seed_from_u64(seed));
        assert!((0..20).map(pause).collect::<BTreeSet<Duration>>().len() > 10);
    }

    proptest! {
        #[test]
        fn random_pauses_are_at_least_half_of_the_pause(failures: u32, seed: u64) {
            let pause = BACKOFF.random_pause(failures, &mut StdRng::seed_from_u64(seed));
            prop_assert!(pause >= BACKOFF.pause(failures) / 2 && pause <= BACKOFF.pause(failures));
        }
    }
}
