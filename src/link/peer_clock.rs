//! How far the clocks of two daemons are apart.
//!
//! Each tells the other what its clock says when the link begins, and again when that clock was set: time that passes
//! need not be told. What is remembered of a peer's clock is held against the time since boot, which nobody sets, so that
//! it stays right when this host's own clock is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pmd_protocol::peer::Frame;
use pmd_protocol::peer::frame::Clock;
use rustix::time::{ClockId, clock_gettime};

use super::connection::Traffic;
use crate::base::clock::now_ms;

/// A clock that has moved against the time since boot by more than this was set, not only slewed.
const SET_MS: u64 = 1_000;
/// Nothing was heard.
const UNKNOWN: i64 = i64::MIN;

/// The time since boot in milliseconds, that of suspension included.
fn since_boot_ms() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
}

/// How far a wall clock that says this is ahead of the time since boot.
fn against_boot(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_sub(since_boot_ms())
}

/// Tells a peer of this host's clock.
#[derive(Debug, Default)]
pub(super) struct ClockTeller {
    told: Option<i64>,
}

impl ClockTeller {
    /// What the peer is to be told now, if anything; to be sent at once.
    pub(super) fn due(&mut self) -> Option<Frame> {
        self.look(now_ms())
    }

    fn look(&mut self, wall_ms: u64) -> Option<Frame> {
        let own = against_boot(wall_ms);
        if self.told.is_some_and(|told| told.abs_diff(own) <= SET_MS) {
            return None;
        }
        self.told = Some(own);
        Some(Frame::Clock(Clock { wall_ms }))
    }
}

/// What is known of a peer's clock.
#[derive(Debug)]
pub struct PeerClock {
    /// How far it is ahead of this host's time since boot.
    ahead_of_boot: AtomicI64,
    traffic: Arc<Traffic>,
}

impl PeerClock {
    /// The clock of the peer behind this connection, of which nothing was heard.
    pub(super) fn new(traffic: Arc<Traffic>) -> PeerClock {
        PeerClock { ahead_of_boot: AtomicI64::new(UNKNOWN), traffic }
    }

    /// Takes in what the peer has said, which has been under way for about half of a round trip.
    pub(super) fn hear(&self, clock: Clock) {
        let under_way = i64::from(self.traffic.rtt_us().unwrap_or(0)) / 2_000;
        let ahead = against_boot(clock.wall_ms).saturating_add(under_way);
        self.ahead_of_boot.store(ahead.max(UNKNOWN + 1), Ordering::Relaxed);
    }

    /// How far the peer's clock is ahead of this host's, in milliseconds; once it is known.
    pub fn ahead_ms(&self) -> Option<i64> {
        let theirs = self.ahead_of_boot.load(Ordering::Relaxed);
        (theirs != UNKNOWN).then(|| theirs.saturating_sub(against_boot(now_ms())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_once_and_when_it_was_set() {
        let mut teller = ClockTeller::default();
        assert!(teller.look(1_000_000).is_some());
        assert_eq!(teller.look(1_000_000), None);
        assert_eq!(teller.look(1_060_000), Some(Frame::Clock(Clock { wall_ms: 1_060_000 })));
        assert!(teller.look(1_000_000).is_some());
    }

    #[test]
    fn a_clock_is_compared_whatever_it_says() {
        let clock = PeerClock::new(Arc::default());
        assert_eq!(clock.ahead_ms(), None);
        clock.hear(Clock { wall_ms: now_ms() + 3_600_000 });
        assert!(clock.ahead_ms().is_some_and(|ahead| (3_500_000..3_700_000).contains(&ahead)));
        clock.hear(Clock { wall_ms: 0 });
        assert!(clock.ahead_ms().is_some_and(|ahead| ahead < -1_000_000_000));
        clock.hear(Clock { wall_ms: u64::MAX });
        assert!(clock.ahead_ms().is_some_and(|ahead| ahead > 1_000_000_000));
    }
}
