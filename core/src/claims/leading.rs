//! What a leader knows about the other voters.

use pmd_protocol::peer::claims::{Ballot, Position};

/// A whole table is sent to a voter at most this often.
const IMAGE_MS: u64 = 500;

/// One voter, as the leader sees it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The version that it has accepted.
    version: u64,
    /// The last beat that it has answered.
    beat: u64,
    /// When it was heard last.
    heard_ms: u64,
    /// When it may be sent a whole table again.
    image_ms: u64,
}

/// How far the other voters follow a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The version that was chosen.
    pub chosen: u64,
    /// The latest beat.
    pub beats: u64,
    /// The latest beat that a majority has answered.
    pub heard: u64,
    /// When the latest beat began.
    pub begun_ms: u64,
}

/// The leader's part of the consensus.
#[derive(Debug)]
pub(super) struct Leading {
    ballot: Ballot,
    /// The first version under this ballot.
    first: u64,
    voters: Vec<Seen>,
    beats: u64,
    begun_ms: u64,
    wake_ms: u64,
}

impl Leading {
    pub(super) fn new(ballot: Ballot, count: u8, first: u64, now_ms: u64) -> Leading {
        let seen = Seen { version: 0, beat: 0, heard_ms: now_ms, image_ms: 0 };
        Leading {
            ballot,
            first,
            voters: vec![seen; usize::from(count)],
            beats: 0,
            begun_ms: now_ms,
            wake_ms: now_ms,
        }
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    pub(super) fn wake_ms(&self) -> u64 {
        self.wake_ms
    }

    /// Whether the first table under this ballot was chosen.
    pub(super) fn is_confirmed(&self) -> bool {
        self.chosen() >= self.first
    }

    pub(super) fn progress(&self) -> Progress {
        let (beats, begun_ms) = (self.beats, self.begun_ms);
        Progress { chosen: self.chosen(), beats, heard: self.of_majority(|seen| seen.beat), begun_ms }
    }

    /// The version that a majority has accepted.
    fn chosen(&self) -> u64 {
        self.of_majority(|seen| seen.version)
    }

    /// Whether no majority was heard for so long.
    pub(super) fn is_deserted(&self, now_ms: u64, silent_ms: u64) -> bool {
        now_ms >= self.of_majority(|seen| seen.heard_ms) + silent_ms
    }

    pub(super) fn begin_beat(&mut self, own: u8, now_ms: u64, pause_ms: u64) -> u64 {
        self.beats += 1;
        self.begun_ms = now_ms;
        self.wake_ms = now_ms + pause_ms;
        let beat = self.beats;
        if let Some(seen) = self.voters.get_mut(usize::from(own)) {
            (seen.beat, seen.heard_ms) = (beat, now_ms);
        }
        beat
    }

    pub(super) fn accepted_by(&mut self, voter: u8, to: Position, now_ms: u64) {
        if to.ballot == self.ballot
            && let Some(seen) = self.voters.get_mut(usize::from(voter))
        {
            (seen.version, seen.heard_ms) = (seen.version.max(to.version), now_ms);
        }
    }

    pub(super) fn heard_by(&mut self, voter: u8, ballot: Ballot, beat: u64, now_ms: u64) {
        if ballot == self.ballot
            && beat <= self.beats
            && let Some(seen) = self.voters.get_mut(usize::from(voter))
        {
            (seen.beat, seen.heard_ms) = (seen.beat.max(beat), now_ms);
        }
    }

    pub(super) fn may_send_image(&mut self, voter: u8, now_ms: u64) -> bool {
        let Some(seen) = self.voters.get_mut(usize::from(voter)) else { return false };
        let may = now_ms >= seen.image_ms;
        if may {
            seen.image_ms = now_ms + IMAGE_MS;
        }
        may
    }

    /// The highest value that a majority has reached.
    fn of_majority(&self, value: impl Fn(&Seen) -> u64) -> u64 {
        let mut values: Vec<u64> = self.voters.iter().map(value).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}
