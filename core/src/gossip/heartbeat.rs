//! The numbering of heartbeats on one link, and the round-trip times measured by their echoes.

use std::collections::VecDeque;

use pmd_protocol::peer::frame::Echo;

/// The number of sent heartbeats that an echo may still answer.
const MAX_SENT: usize = 16;
/// Every how many heartbeats one carries an echo; the first few on a link all do.
const ECHO_EVERY: u32 = 8;
const ECHO_FIRST: u32 = 3;

/// The heartbeats of one link, in both directions.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    count: u32,
    /// The numbers of sent heartbeats that may still be answered, and when they were sent.
    sent_ms: VecDeque<(u8, u64)>,
    /// The number of the last heartbeat received, and when it arrived.
    last_received: Option<(u8, u64)>,
}

impl Heartbeats {
    /// Records a received heartbeat. Returns the round-trip time in milliseconds if its echo allows one to be measured.
    pub(super) fn received(&mut self, now_ms: u64, sequence: u8, echo: Option<Echo>) -> Option<u64> {
        self.last_received = Some((sequence, now_ms));
        let echo = echo?;
        let (_, sent_ms) = *self.sent_ms.iter().find(|(sequence, _)| *sequence == echo.sequence)?;
        self.sent_ms.retain(|(_, at_ms)| *at_ms > sent_ms);
        Some(now_ms.saturating_sub(sent_ms).saturating_sub(echo.held_ms.into()))
    }

    /// The number of the next heartbeat to send, and its echo.
    pub(super) fn next(&mut self, now_ms: u64) -> (u8, Option<Echo>) {
        self.count = self.count.wrapping_add(1);
        let [.., sequence] = self.count.to_be_bytes();
        self.sent_ms.push_back((sequence, now_ms));
        if self.sent_ms.len() > MAX_SENT {
            self.sent_ms.pop_front();
        }
        let is_echo = self.count <= ECHO_FIRST || self.count.is_multiple_of(ECHO_EVERY);
        let echo = self.last_received.filter(|_| is_echo).and_then(|(sequence, at_ms)| {
            Some(Echo { sequence, held_ms: u16::try_from(now_ms.saturating_sub(at_ms)).ok()? })
        });
        (sequence, echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_gives_the_time_without_what_the_peer_held_it_back() {
        let (mut one, mut other) = (Heartbeats::default(), Heartbeats::default());
        let (first, echo) = one.next(1_000);
        assert_eq!((first, echo), (1, None));
        assert_eq!(other.received(1_020, first, None), None);
        let (second, echo) = other.next(1_320);
        assert_eq!(echo, Some(Echo { sequence: 1, held_ms: 300 }));
        assert_eq!(one.received(1_350, second, echo), Some(50));
        assert_eq!(one.received(1_360, second, echo), None, "each heartbeat is measured only once");
    }

    #[test]
    fn most_heartbeats_carry_no_echo() {
        let mut heartbeats = Heartbeats::default();
        heartbeats.received(0, 1, None);
        let echoes = (0..16).filter(|now_ms| heartbeats.next(*now_ms).1.is_some());
        assert_eq!(echoes.count(), 5);
    }
}
