//! A token bucket. The caller passes the time.

/// The rate of a token bucket.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// The capacity of the bucket.
    pub burst: u64,
    /// Tokens added per second.
    pub per_second: u64,
}

/// One token, in thousandths: at a rate of one per second, a millisecond adds one thousandth.
const TOKEN: u64 = 1000;

/// A token bucket. It does not store its rate, because there may be many buckets with the same rate, one per peer.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    thousandths: u64,
    updated_ms: u64,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn full(rate: Rate, now_ms: u64) -> TokenBucket {
        TokenBucket { thousandths: rate.capacity(), updated_ms: now_ms }
    }

    /// Takes a token, and returns whether there was one.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let gained = now_ms.saturating_sub(self.updated_ms).saturating_mul(rate.per_second);
        // If the clock goes back, the same time must not count twice.
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

    /// The time of the last call of [`take`](Self::take).
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
    fn a_bucket_is_emptied_and_refilled() {
        let mut bucket = TokenBucket::full(RATE, 0);
        let mut taken = |now| (0..10).filter(|_| bucket.take(RATE, now)).count();
        assert_eq!([0, 0, 400, 500, 1000, 60_000].map(&mut taken), [3, 0, 0, 1, 1, 3]);
    }

    #[test]
    fn a_clock_that_goes_back_adds_no_tokens() {
        let mut bucket = TokenBucket::full(RATE, 10_000);
        let mut taken = |now| (0..10).filter(|_| bucket.take(RATE, now)).count();
        assert_eq!([10_000, 1_000, 10_000, 10_500].map(&mut taken), [3, 0, 0, 1]);
    }
}
