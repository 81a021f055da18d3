//! A token bucket: how often something may happen. The time is an argument.

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How many times at once.
    pub burst: u64,
    /// How many times per second in the long run.
    pub per_second: u64,
}

/// Thousandths of a token, which are what one token per second gains in a millisecond.
const TOKEN: u64 = 1000;

/// Tokens that are taken one by one and come back with time. The rate is not kept with them: there may be one bucket for
/// each of many peers, all of the same rate.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    thousandths: u64,
    updated_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(rate: Rate, now_ms: u64) -> TokenBucket {
        TokenBucket { thousandths: rate.capacity(), updated_ms: now_ms }
    }

    /// Takes a token; false if there is none.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let gained = now_ms.saturating_sub(self.updated_ms).saturating_mul(rate.per_second);
        // A clock that is set back must not make the same time count twice.
        self.updated_ms = self.updated_ms.max(now_ms);
        self.thousandths = self.thousandths.saturating_add(gained).min(rate.capacity());
        match self.thousandths.checked_sub(TOKEN) {
            Some(rest) => {
                self.thousandths = rest;
                true
            }
            None => false,
        }
    }

    /// When it was asked last.
    pub fn updated_ms(&self) -> u64 {
        self.updated_ms
    }
}

impl Rate {
    fn capacity(self) -> u64 {
        self.burst.saturating_mul(TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let mut bucket = TokenBucket::full(RATE, 0);
        let mut taken = |now| (0..10).filter(|_| bucket.take(RATE, now)).count();
        assert_eq!([0, 0, 400, 500, 1000, 60_000].map(&mut taken), [3, 0, 0, 1, 1, 3]);
    }

    #[test]
    fn a_clock_that_is_set_back_gains_nothing() {
        let mut bucket = TokenBucket::full(RATE, 10_000);
        let mut taken = |now| (0..10).filter(|_| bucket.take(RATE, now)).count();
        assert_eq!([10_000, 1_000, 10_000, 10_500].map(&mut taken), [3, 0, 0, 1]);
    }
}
