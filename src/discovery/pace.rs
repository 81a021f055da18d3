//! The schedule of a daemon's beacons. Time and randomness are arguments.
//!
//! Beacons are sent at once, after 1 s and after 3 s, because the first may be lost while a network comes up, and then
//! at random intervals of 27 to 33 s. A daemon that is heard for the first time in a while is answered within a second,
//! so that it need not wait for the next round. The answer is cancelled if beacons of three other daemons are heard
//! first, which are enough for the newcomer: a thousand daemons must not answer one.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;
use rand::{Rng, RngExt};

/// Times of the first beacons.
const BURST_MS: [u64; 3] = [0, 1000, 3000];
/// Shortest and longest interval between rounds after that.
const ROUND_MS: (u64, u64) = (27_000, 33_000);
/// Shortest and longest delay of an answer.
const ANSWER_MS: (u64, u64) = (50, 1000);
/// Shortest interval between two answers.
const BETWEEN_ANSWERS_MS: u64 = 5000;
/// Beacons of other daemons that make an answer unnecessary.
const ENOUGH: usize = 3;
/// A daemon that was silent for three rounds counts as a newcomer.
const SILENCE_MS: u64 = 3 * ROUND_MS.1;
/// Maximum number of remembered daemons. Beyond that, the one silent for longest is forgotten and counts as a newcomer
/// again.
const MAX_KNOWN: usize = 1024;

/// The schedule of a daemon's beacons.
#[derive(Debug)]
pub struct Pace {
    burst: std::slice::Iter<'static, u64>,
    begin_ms: u64,
    round_ms: u64,
    answer: Option<Answer>,
    next_answer_ms: u64,
    known: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
struct Answer {
    due_ms: u64,
    to: NodeId,
    others: usize,
}

impl Pace {
    /// Creates a schedule that starts at `now_ms`.
    pub fn new(now_ms: u64) -> Pace {
        Pace {
            burst: BURST_MS.iter(),
            begin_ms: now_ms,
            round_ms: now_ms,
            answer: None,
            next_answer_ms: now_ms,
            known: BTreeMap::new(),
        }
    }

    /// The time at which to call [`is_due`](Self::is_due) next.
    pub fn next_ms(&self) -> u64 {
        self.answer.as_ref().map_or(self.round_ms, |answer| answer.due_ms.min(self.round_ms))
    }

    /// Whether a beacon must be sent now; if so, schedules the next one.
    pub fn is_due(&mut self, now_ms: u64, rng: &mut impl Rng) -> bool {
        if now_ms < self.next_ms() {
            return false;
        }
        if self.answer.take().is_some() {
            self.next_answer_ms = now_ms.saturating_add(BETWEEN_ANSWERS_MS);
        }
        if now_ms >= self.round_ms {
            // Beacons missed while the process was suspended are skipped.
            let late = |after: &u64| self.begin_ms.saturating_add(*after) > now_ms;
            self.round_ms = match self.burst.by_ref().copied().find(|after| late(after)) {
                Some(after) => self.begin_ms.saturating_add(after),
                None => now_ms.saturating_add(rng.random_range(ROUND_MS.0..=ROUND_MS.1)),
            };
        }
        true
    }

    /// Records a verified beacon from the daemon `id`.
    pub fn heard(&mut self, now_ms: u64, id: NodeId, rng: &mut impl Rng) {
        let last = self.known.insert(id, now_ms);
        if self.known.len() > MAX_KNOWN {
            let oldest = self.known.iter().min_by_key(|(_, heard)| **heard).map(|(id, _)| *id);
            oldest.and_then(|id| self.known.remove(&id));
        }
        if let Some(answer) = &mut self.answer {
            if answer.to != id {
                answer.others = answer.others.saturating_add(1);
            }
            if answer.others >= ENOUGH {
                self.answer = None;
            }
        } else if last.is_none_or(|last| now_ms.saturating_sub(last) > SILENCE_MS) {
            let soon = now_ms.saturating_add(rng.random_range(ANSWER_MS.0..=ANSWER_MS.1));
            self.answer = Some(Answer { due_ms: soon.max(self.next_answer_ms), to: id, others: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn id(number: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    }

    /// The times until `end` at which a beacon is sent.
    fn sent(pace: &mut Pace, end: u64, rng: &mut StdRng) -> Vec<u64> {
        let mut sent = Vec::new();
        while pace.next_ms() <= end {
            let now = pace.next_ms();
            assert!(now == 0 || !pace.is_due(now - 1, rng));
            assert!(pace.is_due(now, rng));
            sent.push(now);
        }
        sent
    }

    #[test]
    fn a_burst_is_followed_by_randomized_rounds() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = Pace::new(0);
        let sent = sent(&mut pace, 3_600_000, &mut rng);
        assert_eq!(sent[..3], [0, 1000, 3000]);
        let mut pauses: Vec<u64> = sent[2..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (27_000..=33_000).contains(pause)));
        pauses.dedup();
        assert!(pauses.len() > 100);
    }

    #[test]
    fn a_round_that_was_missed_is_sent_once() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = Pace::new(0);
        assert!(pace.is_due(2000, &mut rng));
        assert_eq!(pace.next_ms(), 3000);
        assert!(pace.is_due(1_000_000, &mut rng));
        assert!(pace.next_ms() >= 1_027_000);
    }

    /// A schedule whose initial burst is over.
    fn after_burst(rng: &mut StdRng) -> Pace {
        let mut pace = Pace::new(0);
        sent(&mut pace, 3000, rng);
        pace
    }

    #[test]
    fn a_newcomer_is_answered_soon_and_once() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = after_burst(&mut rng);
        pace.heard(4000, id(1), &mut rng);
        let answer = pace.next_ms();
        assert!((4050..=5000).contains(&answer));
        assert!(pace.is_due(answer, &mut rng));
        // The newcomer's own burst and rounds.
        for now in [5000, 7000, 37_000, 67_000, 97_000, 97_000 + SILENCE_MS] {
            let before = pace.next_ms();
            pace.heard(now, id(1), &mut rng);
            assert_eq!(pace.next_ms(), before);
        }
        pace.round_ms = u64::MAX;
        pace.heard(97_000 + 2 * SILENCE_MS + 1, id(1), &mut rng);
        assert!(pace.next_ms() < u64::MAX, "it was away");
    }

    #[test]
    fn answers_are_rare() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = after_burst(&mut rng);
        let mut answers = 0;
        for now in 3000..23_000 {
            // A new daemon every millisecond, while no other daemon answers.
            pace.heard(now, id(now), &mut rng);
            if let Some(answer) = &mut pace.answer {
                answer.others = 0;
            }
            answers += u32::from(pace.is_due(now, &mut rng));
        }
        assert!((2..=5).contains(&answers), "{answers}");
        assert_eq!(pace.known.len(), MAX_KNOWN);
    }

    #[test]
    fn no_answer_is_sent_when_enough_others_have_answered() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut pace = after_burst(&mut rng);
        for number in 1..=4 {
            pace.heard(3500, id(number), &mut rng);
        }
        assert!(pace.next_ms() >= 30_000);
    }
}
