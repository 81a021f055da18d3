//! The durations of a lease, each measured by the clock of one host.
//!
//! A member counts from the moment at which it *sent* the renewal that was acknowledged, a voter from the moment at which
//! it received it, which is later. Between the member's end and the voter's beginning lies a fifth of the duration, so
//! both clocks may be wrong by several percent in opposite directions: 0.9 / 0.95 < 1.1 / 1.05.

/// The shortest lease: a leader needs time to be elected, and a disk to write.
pub const MIN_TTL_MS: u32 = 2_000;

/// The longest lease: nobody waits longer for a host that is gone.
pub const MAX_TTL_MS: u32 = 3_600_000;

/// How often a member renews its lease.
#[must_use]
pub fn renew_after_ms(ttl_ms: u32) -> u64 {
    u64::from(ttl_ms) / 4
}

/// When a member that could not renew its lease gives its claims up: the commands are told to end.
#[must_use]
pub fn lost_after_ms(ttl_ms: u32) -> u64 {
    u64::from(ttl_ms) * 2 / 3
}

/// When the commands have ended at the latest, by force.
#[must_use]
pub fn dead_after_ms(ttl_ms: u32) -> u64 {
    u64::from(ttl_ms) * 9 / 10
}

/// When the voters free the claims.
#[must_use]
pub fn free_after_ms(ttl_ms: u32) -> u64 {
    u64::from(ttl_ms) * 11 / 10
}

/// A digest of a set of attempts, by which member and voter find that they know of different claims.
#[must_use]
pub fn digest(attempts: impl Iterator<Item = u64>) -> u64 {
    attempts.fold(0, |sum, attempt| {
        // splitmix64, so that sums of different small numbers differ.
        let mut mixed = attempt.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum.wrapping_add(mixed ^ (mixed >> 31))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With both clocks 5 % wrong in opposite directions, the command is dead before the name is free.
    #[test]
    fn clocks_may_be_wrong_by_five_percent() {
        for ttl in [MIN_TTL_MS, 10_000, MAX_TTL_MS] {
            let dead = dead_after_ms(ttl) * 100 / 95;
            let free = free_after_ms(ttl) * 100 / 105;
            assert!(dead < free, "{ttl}");
            assert!(renew_after_ms(ttl) < lost_after_ms(ttl) && lost_after_ms(ttl) < dead_after_ms(ttl));
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order() {
        assert_eq!(digest([1, 2].into_iter()), digest([2, 1].into_iter()));
        assert_ne!(digest([1, 4].into_iter()), digest([2, 3].into_iter()));
        assert_ne!(digest([0].into_iter()), digest([].into_iter()));
    }
}
