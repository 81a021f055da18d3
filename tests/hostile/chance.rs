//! Reproducible random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable with the seed that replays a failed run.
const SEED: &str = "PMD_HOSTILE_SEED";

/// A pseudorandom generator (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator seeded from the environment or the clock; prints the seed so that a failure can be replayed.
    pub(crate) fn printed() -> Chance {
        let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("PMD_HOSTILE_SEED is a number"));
        let seed = asked.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
            u64::try_from(now.as_nanos() & u128::from(u64::MAX)).expect("64 bits")
        });
        eprintln!("{SEED}={seed}");
        Chance(seed)
    }

    /// An independent generator, for another thread.
    pub(crate) fn split(&mut self) -> Chance {
        Chance(self.next())
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.next() % bound).expect("less than the bound")
    }

    /// A random element.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// This many random bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(count).collect()
    }
}
