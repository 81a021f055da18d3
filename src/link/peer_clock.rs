//! The clock offset between two daemons.
//!
//! Each daemon sends its wall-clock time when the link begins, and again whenever that clock is set. A peer's clock is
//! stored relative to the time since boot, which is never set, so it stays correct when this host's own clock is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pmd_protocol::peer::Frame;
use pmd_protocol::peer::frame::Clock;
use rustix::time::{ClockId, clock_gettime};

use super::connection::Traffic;
use crate::base::clock::now_ms;

/// A clock that moved relative to the time since boot by more than this was set, not merely slewed.
const SET_MS: u64 = 1_000;
/// The peer has not sent its time yet.
const UNKNOWN: i64 = i64::MIN;

/// The time since boot in milliseconds, including time in suspend.
fn since_boot_ms() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
}

/// How far this wall-clock time is ahead of the time since boot.
fn against_boot(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_sub(since_boot_ms())
}

/// Announces this host's clock to a peer.
#[derive(Debug, Default)]
pub(super) struct ClockAnnouncer {
    announced: Option<i64>,
}

impl ClockAnnouncer {
    /// The frame to send now, if an announcement is due. It must be sent without delay.
    pub(super) fn due(&mut self) -> Option<Frame> {
        self.due_at(now_ms())
    }

    fn due_at(&mut self, wall_ms: u64) -> Option<Frame> {
        let own = against_boot(wall_ms);
        if self.announced.is_some_and(|announced| announced.abs_diff(own) <= SET_MS) {
            return None;
        }
        self.announced = Some(own);
        Some(Frame::Clock(Clock { wall_ms }))
    }
}

/// A peer's clock, as far as it is known.
#[derive(Debug)]
pub struct PeerClock {
    /// How far the peer's clock is ahead of this host's time since boot.
    ahead_of_boot: AtomicI64,
    traffic: Arc<Traffic>,
}

impl PeerClock {
    /// Creates the still unknown clock of the peer on this connection.
    pub(super) fn new(traffic: Arc<Traffic>) -> PeerClock {
        PeerClock { ahead_of_boot: AtomicI64::new(UNKNOWN), traffic }
    }

    /// Stores the time sent by the peer, adding half a round trip for its time in transit.
    pub(super) fn update(&self, clock: Clock) {
        let in_transit = i64::from(self.traffic.rtt_us().unwrap_or(0)) / 2_000;
        let ahead = against_boot(clock.wall_ms).saturating_add(in_transit);
        self.ahead_of_boot.store(ahead.max(UNKNOWN + 1), Ordering::Relaxed);
    }

    /// How far the peer's clock is ahead of this host's in milliseconds, once known.
    pub fn ahead_ms(&self) -> Option<i64> {
        let theirs = self.ahead_of_boot.load(Ordering::Relaxed);
        (theirs != UNKNOWN).then(|| theirs.saturating_sub(against_boot(now_ms())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_announced_once_and_after_it_was_set() {
        let mut announcer = ClockAnnouncer::default();
        assert!(announcer.due_at(1_000_000).is_some());
        assert_eq!(announcer.due_at(1_000_000), None);
        assert_eq!(announcer.due_at(1_060_000), Some(Frame::Clock(Clock { wall_ms: 1_060_000 })));
        assert!(announcer.due_at(1_000_000).is_some());
    }

    #[test]
    fn any_clock_value_can_be_compared() {
        let clock = PeerClock::new(Arc::default());
        assert_eq!(clock.ahead_ms(), None);
        clock.update(Clock { wall_ms: now_ms() + 3_600_000 });
        assert!(clock.ahead_ms().is_some_and(|ahead| (3_500_000..3_700_000).contains(&ahead)));
        clock.update(Clock { wall_ms: 0 });
        assert!(clock.ahead_ms().is_some_and(|ahead| ahead < -1_000_000_000));
        clock.update(Clock { wall_ms: u64::MAX });
        assert!(clock.ahead_ms().is_some_and(|ahead| ahead > 1_000_000_000));
    }
}
