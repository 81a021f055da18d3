//! The dead members that a table remembers, so that outdated records cannot revive them.
//!
//! Those that this daemon has reached once are remembered for a day. Anybody can invent the others, so they are forgotten
//! after minutes, there is a limit on their number, and they give way first.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::NodeId;

use crate::tuning::MembershipTuning;

/// The number of dead members to remember that were never reached. Beyond that, the oldest is forgotten.
pub const MAX_UNREACHED: usize = 4_096;

/// Dead members by age and by id.
#[derive(Clone, Debug, Default)]
pub struct Dead {
    reached: BTreeSet<(u64, NodeId)>,
    unreached: BTreeSet<(u64, NodeId)>,
    since: BTreeMap<NodeId, u64>,
}

impl Dead {
    /// Remembers a member that was found dead now.
    pub fn insert(&mut self, now_ms: u64, id: NodeId, was_reached: bool) {
        self.remove(&id);
        self.since.insert(id, now_ms);
        let set = if was_reached { &mut self.reached } else { &mut self.unreached };
        set.insert((now_ms, id));
    }

    /// Forgets a member, which is alive again or unknown from now on.
    pub fn remove(&mut self, id: &NodeId) {
        if let Some(since_ms) = self.since.remove(id) {
            self.reached.remove(&(since_ms, *id));
            self.unreached.remove(&(since_ms, *id));
        }
    }

    /// Takes a member that need not be remembered any longer.
    pub fn pop_due(&mut self, now_ms: u64, tuning: &MembershipTuning) -> Option<NodeId> {
        let is_over = self.unreached.len() > MAX_UNREACHED;
        let is_due = |(since_ms, id): (u64, NodeId), keep_ms| {
            (now_ms.saturating_sub(since_ms) >= keep_ms).then_some(id)
        };
        let unreached = self.unreached.first().copied();
        let reached = self.reached.first().copied();
        let keep_ms = if is_over { 0 } else { tuning.remember_unreached_ms };
        let due = unreached.and_then(|oldest| is_due(oldest, keep_ms));
        let due = due.or_else(|| reached.and_then(|oldest| is_due(oldest, tuning.remember_down_ms)))?;
        self.remove(&due);
        Some(due)
    }

    /// Takes the member that gives way to a newcomer: the oldest that was never reached or, if the newcomer was `reached`,
    /// the oldest of those that were.
    pub fn pop_for(&mut self, reached: bool) -> Option<NodeId> {
        let oldest = self.unreached.first().or_else(|| self.reached.first().filter(|_| reached));
        let (_, id) = oldest.copied()?;
        self.remove(&id);
        Some(id)
    }

    /// When the next member is forgotten.
    #[must_use]
    pub fn next_due(&self, tuning: &MembershipTuning) -> Option<u64> {
        let due = |set: &BTreeSet<(u64, NodeId)>, keep_ms| {
            set.first().map(|(since_ms, _)| since_ms.saturating_add(keep_ms))
        };
        let unreached = due(&self.unreached, tuning.remember_unreached_ms);
        unreached.into_iter().chain(due(&self.reached, tuning.remember_down_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNING: MembershipTuning = MembershipTuning::DEFAULT;

    fn id(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    }

    #[test]
    fn those_that_were_never_reached_are_forgotten_within_minutes() {
        let mut dead = Dead::default();
        dead.insert(0, id(1), true);
        dead.insert(10, id(2), false);
        let minutes = TUNING.remember_unreached_ms;
        assert_eq!(dead.next_due(&TUNING), Some(10 + minutes));
        assert_eq!(dead.pop_due(9 + minutes, &TUNING), None);
        assert_eq!(dead.pop_due(10 + minutes, &TUNING), Some(id(2)));
        assert_eq!(dead.next_due(&TUNING), Some(TUNING.remember_down_ms));
        assert_eq!(dead.pop_due(TUNING.remember_down_ms, &TUNING), Some(id(1)));
        assert_eq!((dead.next_due(&TUNING), dead.since.len()), (None, 0));
    }

    #[test]
    fn those_that_were_never_reached_are_few_and_give_way_first() {
        let mut dead = Dead::default();
        (0..10).for_each(|number| dead.insert(0, id(number), true));
        (10..20_000).for_each(|number| {
            dead.insert(1, id(number), false);
            while dead.pop_due(1, &TUNING).is_some() {}
        });
        assert_eq!((dead.reached.len(), dead.unreached.len()), (10, MAX_UNREACHED));
        assert_eq!(dead.pop_for(true), Some(id(20_000 - MAX_UNREACHED)));
        (1..MAX_UNREACHED).for_each(|_| assert!(dead.pop_for(false).is_some()));
        assert_eq!(dead.pop_for(false), None);
        assert_eq!(dead.pop_for(true), Some(id(0)));
    }

    #[test]
    fn a_member_is_dead_once() {
        let mut dead = Dead::default();
        dead.insert(0, id(1), false);
        dead.insert(5, id(1), true);
        assert_eq!((dead.reached.len(), dead.unreached.len()), (1, 0));
        dead.remove(&id(1));
        assert_eq!(dead.pop_for(true), None);
    }
}
