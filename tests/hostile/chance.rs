//! Random numbers that can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// Replays a run: the seed that the failed one has printed.
const SEED: &str = "PMD_HOSTILE_SEED";

/// A generator of numbers that look random (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator with a seed from the environment or the clock, which it prints for whoever replays a failure.
    pub(crate) fn printed() -> Chance {
        let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("PMD_HOSTILE_SEED is a number"));
        let seed = asked.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
            u64::try_from(now.as_nanos() & u128::from(u64::MAX)).expect("64 bits")
        });
        eprintln!("{SEED}={seed}");
        Chance(seed)
    }

    /// A generator whose numbers have nothing to do with those to come of this one, for another thread.
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

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.next() % bound).expect("less than the bound")
    }

    /// One of several things.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// This many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(count).collect()
    }
}
