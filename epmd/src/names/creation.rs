//! The creation counter of one Erlang node name.
//!
//! Erlang only compares creations of the *same* name, to tell a restarted node's pids from its predecessor's. Every
//! name therefore has its own counter, which starts from the clock and then counts up.

/// Values below this are reserved by Erlang (0 is "unknown", 1 to 3 are the old two-bit form).
const LOWEST: u32 = 4;

/// The counter of a name that is new or was forgotten: the clock's seconds plus one.
///
/// `now` is in seconds since the Unix epoch; past 2106 only its low 32 bits count.
pub fn first(now: u64) -> u32 {
    next(u32::try_from(now & u64::from(u32::MAX)).unwrap_or(u32::MAX))
}

/// The counter for the next registration of the name; wraps around past the reserved values.
pub fn next(creation: u32) -> u32 {
    creation.checked_add(1).unwrap_or(LOWEST).max(LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_one_past_the_clock_and_counts_up() {
        assert_eq!(first(1_700_000_000), 1_700_000_001);
        assert_eq!(next(1_700_000_001), 1_700_000_002);
    }

    #[test]
    fn never_takes_a_reserved_value() {
        assert_eq!(first(0), 4);
        assert_eq!(next(u32::MAX), 4);
        assert_eq!(first(u64::from(u32::MAX)), 4);
    }
}
