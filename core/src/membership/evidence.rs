//! Probing a member when its link ends or falls silent.
//!
//! ```text
//!                 ┌────────────── an observer reached it ───────────▶ Cleared
//!   trigger ──▶ Case: dial it, ask helpers to do the same
//!                 ├── two observers: nothing listens there ─────────▶ Suspect, short wait
//!                 ├── all answered or timed out, none reached it ───▶ Suspect, usual wait
//!                 └── none could look ──────────────────────────────▶ Unknown
//! ```
//!
//! A trigger is never enough to declare a member dead. It makes this daemon probe the member at once, directly and
//! through helpers. The outcome is at worst a suspicion like any other, which the member can refute. This module has no
//! effects of its own: the caller dials, asks and suspects.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::frame::Observation;
use pmd_protocol::peer::{Generation, NodeId};

use super::health::Health;
use crate::tuning::MembershipTuning;

/// The number of cases that a healthy daemon can have open at once; further triggers are ignored. With more, either this
/// daemon's own network or half the cluster has failed, which the membership protocol will detect.
pub const MAX_CASES: usize = 64;

/// Why a member is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Its link ended without a `Close`: end of stream, or reset.
    LinkEnded,
    /// Its link has been silent for unusually long, or others consider it dead.
    Silent,
    /// A dial has failed.
    DialFailed,
}

/// An action that the caller must take to probe a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// Dial the member, and report the observation with this token.
    Dial {
        /// Identifies the case.
        token: u64,
        /// The member to dial.
        target: NodeId,
    },
    /// Ask a helper to dial it.
    Ask {
        /// Identifies the case.
        token: u64,
        /// The member to ask.
        helper: NodeId,
        /// The member to dial.
        target: NodeId,
        /// The generation of the target to probe.
        generation: Generation,
    },
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// At least one observer reached the member.
    Cleared {
        /// The member.
        target: NodeId,
        /// Whether this daemon failed to reach it, which suggests a local fault.
        only_by_others: bool,
    },
    /// No observer reached the member.
    Suspect {
        /// The member.
        target: NodeId,
        /// The generation that was probed.
        generation: Generation,
        /// Whether the connections of two observers were refused.
        refused: bool,
        /// How many observers, this daemon included, looked and reported in time.
        observers: usize,
        /// Whether a helper did not report at all. Then this daemon may be the one that is cut off or slow.
        unheard: bool,
    },
    /// No observer could look, which says nothing about the member.
    Unknown,
}

/// All open cases.
#[derive(Debug)]
pub struct Evidence {
    me: NodeId,
    wait_ms: u64,
    next_token: u64,
    cases: BTreeMap<NodeId, Case>,
}

/// A member that is being probed.
#[derive(Debug)]
struct Case {
    token: u64,
    generation: Generation,
    trigger: Trigger,
    observers: BTreeSet<NodeId>,
    observations: BTreeMap<NodeId, Observation>,
    deadline_ms: u64,
}

impl Evidence {
    /// An empty set of cases.
    #[must_use]
    pub fn new(me: NodeId, tuning: &MembershipTuning) -> Self {
        Self { me, wait_ms: tuning.probe_period_ms, next_token: 1, cases: BTreeMap::new() }
    }

    /// Opens a case about a member, with `helpers` to probe it as well. Does nothing if a case is already open.
    ///
    /// The worse the health of this daemon, the later the deadline and the fewer cases are open at once.
    pub fn open(
        &mut self,
        now_ms: u64,
        (target, generation): (NodeId, Generation),
        trigger: Trigger,
        helpers: &[NodeId],
        health: &Health,
    ) -> Vec<ProbeAction> {
        let is_full = self.cases.len() >= health.share(MAX_CASES);
        if target == self.me || self.cases.contains_key(&target) || is_full {
            return Vec::new();
        }
        let token = self.next_token;
        self.next_token += 1;
        let mut observers: BTreeSet<_> = helpers.iter().copied().filter(|helper| *helper != target).collect();
        let mut actions = vec![ProbeAction::Dial { token, target }];
        actions.extend(observers.iter().map(|helper| ProbeAction::Ask {
            token,
            helper: *helper,
            target,
            generation,
        }));
        observers.insert(self.me);
        let deadline_ms = now_ms.saturating_add(health.stretch(self.wait_ms));
        let case = Case { token, generation, trigger, observers, observations: BTreeMap::new(), deadline_ms };
        self.cases.insert(target, case);
        actions
    }

    /// Records what `observer` observed. Returns the outcome if that decides the case. Unsolicited observations are
    /// ignored.
    pub fn observed(
        &mut self,
        token: u64,
        observer: NodeId,
        observation: Observation,
    ) -> Option<ProbeOutcome> {
        let (target, case) = self.cases.iter_mut().find(|(_, case)| case.token == token)?;
        if !case.observers.contains(&observer) {
            return None;
        }
        case.observations.insert(observer, observation);
        let target = *target;
        let outcome = case.outcome(target, self.me, false)?;
        self.cases.remove(&target);
        Some(outcome)
    }

    /// A helper can no longer answer, because its link has ended. Returns the outcomes of the cases that this decides.
    pub fn helper_lost(&mut self, helper: NodeId) -> Vec<ProbeOutcome> {
        let waiting = self
            .cases
            .values()
            .filter(|case| case.observers.contains(&helper) && !case.observations.contains_key(&helper));
        let tokens: Vec<_> = waiting.map(|case| case.token).collect();
        tokens.into_iter().filter_map(|token| self.observed(token, helper, Observation::Unknown)).collect()
    }

    /// Closes the case about a member that has reconnected or is down.
    pub fn drop_case(&mut self, target: &NodeId) {
        self.cases.remove(target);
    }

    /// The outcomes of cases that have timed out.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Vec<ProbeOutcome> {
        let me = self.me;
        let mut outcomes = Vec::new();
        self.cases.retain(|target, case| {
            let is_due = case.deadline_ms <= now_ms;
            if is_due {
                outcomes.extend(case.outcome(*target, me, true));
            }
            !is_due
        });
        outcomes
    }

    /// When the next case times out; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.cases.values().map(|case| case.deadline_ms).min()
    }

    /// Extends all cases, because this daemon was not running for `lag_ms` and answers may be queued.
    pub fn postpone(&mut self, lag_ms: u64) {
        for case in self.cases.values_mut() {
            case.deadline_ms = case.deadline_ms.saturating_add(lag_ms);
        }
    }
}

impl Case {
    fn outcome(&self, target: NodeId, me: NodeId, timed_out: bool) -> Option<ProbeOutcome> {
        let seen = |wanted: Observation| self.observations.values().filter(move |seen| **seen == wanted);
        if seen(Observation::Reached).next().is_some() {
            let own = self.observations.get(&me);
            let only_by_others = own.is_some_and(|own| *own != Observation::Reached);
            return Some(ProbeOutcome::Cleared { target, only_by_others });
        }
        let mut refusals = seen(Observation::Refused).count();
        // Without helpers, the end of the link stands in for the second observer: the target's host has reported twice
        // that the process is gone.
        if self.observers.len() == 1 && self.trigger == Trigger::LinkEnded && refusals == 1 {
            refusals = 2;
        }
        let refused = refusals >= 2;
        let complete = self.observations.len() == self.observers.len();
        if !(refused || complete || timed_out) {
            return None;
        }
        let looked = self.observations.len() - seen(Observation::Unknown).count();
        if looked == 0 {
            return Some(ProbeOutcome::Unknown);
        }
        let unheard = timed_out && self.observers.iter().any(|one| !self.observations.contains_key(one));
        Some(ProbeOutcome::Suspect {
            target,
            generation: self.generation,
            refused,
            observers: looked,
            unheard,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Generation = Generation { boot_ms: 5, nonce: 0 };

    fn node(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    /// A case about node 9, opened by node 1 at 1,000 ms.
    fn case(trigger: Trigger, helpers: &[u8]) -> Evidence {
        let mut evidence = Evidence::new(node(1), &MembershipTuning::DEFAULT);
        let helpers: Vec<_> = helpers.iter().map(|helper| node(*helper)).collect();
        let health = Health::new(&MembershipTuning::DEFAULT);
        let actions = evidence.open(1_000, (node(9), GENERATION), trigger, &helpers, &health);
        assert_eq!(actions.len(), 1 + helpers.iter().filter(|helper| **helper != node(9)).count());
        assert_eq!(actions.first(), Some(&ProbeAction::Dial { token: 1, target: node(9) }));
        evidence
    }

    fn suspect(refused: bool, observers: usize) -> ProbeOutcome {
        ProbeOutcome::Suspect { target: node(9), generation: GENERATION, refused, observers, unheard: false }
    }

    fn suspect_unheard(observers: usize) -> ProbeOutcome {
        let (target, generation) = (node(9), GENERATION);
        ProbeOutcome::Suspect { target, generation, refused: false, observers, unheard: true }
    }

    #[test]
    fn one_observer_that_reaches_it_clears_it() {
        let mut evidence = case(Trigger::Silent, &[2, 3]);
        assert_eq!(evidence.observed(1, node(1), Observation::Silent), None);
        let cleared = ProbeOutcome::Cleared { target: node(9), only_by_others: true };
        assert_eq!(evidence.observed(1, node(2), Observation::Reached), Some(cleared));
        assert_eq!(evidence.observed(1, node(3), Observation::Refused), None, "closed");
        assert_eq!(evidence.poll_timeout(), None);
    }

    #[test]
    fn two_refusals_decide_at_once() {
        let mut evidence = case(Trigger::LinkEnded, &[2, 3]);
        assert_eq!(evidence.observed(1, node(1), Observation::Refused), None, "one observer is not enough");
        assert_eq!(evidence.observed(1, node(2), Observation::Refused), Some(suspect(true, 2)));
    }

    #[test]
    fn one_observer_counts_once() {
        let mut evidence = case(Trigger::LinkEnded, &[2, 3]);
        for _ in 0..3 {
            assert_eq!(evidence.observed(1, node(2), Observation::Refused), None);
        }
    }

    #[test]
    fn silence_waits_for_all_observers_or_the_timeout() {
        let mut evidence = case(Trigger::Silent, &[2]);
        assert_eq!(evidence.observed(1, node(1), Observation::Silent), None);
        assert_eq!(evidence.observed(1, node(2), Observation::Silent), Some(suspect(false, 2)));
        let mut evidence = case(Trigger::Silent, &[2]);
        assert_eq!(evidence.observed(1, node(1), Observation::Silent), None);
        assert_eq!(evidence.poll_timeout(), Some(2_000));
        assert_eq!(evidence.handle_timeout(1_999), []);
        assert_eq!(evidence.handle_timeout(2_000), [suspect_unheard(1)]);
        assert_eq!(evidence.handle_timeout(2_000), []);
    }

    /// Could not look is not silent.
    #[test]
    fn an_observer_that_could_not_look_says_nothing_about_the_member() {
        let mut evidence = case(Trigger::Silent, &[2, 3]);
        assert_eq!(evidence.observed(1, node(1), Observation::Unknown), None);
        assert_eq!(evidence.observed(1, node(2), Observation::Unknown), None);
        assert_eq!(evidence.observed(1, node(3), Observation::Silent), Some(suspect(false, 1)), "one looked");
        let mut evidence = case(Trigger::LinkEnded, &[2]);
        assert_eq!(evidence.observed(1, node(1), Observation::Unknown), None);
        assert_eq!(evidence.observed(1, node(2), Observation::Unknown), Some(ProbeOutcome::Unknown));
        let mut evidence = case(Trigger::Silent, &[2]);
        assert_eq!(evidence.handle_timeout(2_000), [ProbeOutcome::Unknown], "nobody has looked");
    }

    #[test]
    fn a_helper_whose_link_ends_is_not_waited_for() {
        let mut evidence = case(Trigger::Silent, &[2, 3]);
        assert_eq!(evidence.observed(1, node(1), Observation::Silent), None);
        assert_eq!(evidence.observed(1, node(2), Observation::Silent), None);
        assert_eq!(evidence.helper_lost(node(2)), [], "it has answered");
        assert_eq!(evidence.helper_lost(node(3)), [suspect(false, 2)]);
    }

    #[test]
    fn a_daemon_that_is_slow_itself_opens_fewer_cases_and_waits_longer() {
        let mut health = Health::new(&MembershipTuning::DEFAULT);
        (0..100).for_each(|_| health.worse());
        let mut evidence = Evidence::new(node(255), &MembershipTuning::DEFAULT);
        let open =
            |number| evidence.open(0, (node(number), GENERATION), Trigger::LinkEnded, &[], &health).len();
        assert_eq!((0..=254).map(open).sum::<usize>(), MAX_CASES / 9);
        assert_eq!(evidence.poll_timeout(), Some(9_000));
    }

    #[test]
    fn without_helpers_the_end_of_the_link_is_the_second_observer() {
        let outcome = |trigger, seen| case(trigger, &[]).observed(1, node(1), seen);
        assert_eq!(outcome(Trigger::LinkEnded, Observation::Refused), Some(suspect(true, 1)));
        assert_eq!(outcome(Trigger::Silent, Observation::Refused), Some(suspect(false, 1)));
        assert_eq!(outcome(Trigger::LinkEnded, Observation::Silent), Some(suspect(false, 1)));
    }

    #[test]
    fn observations_of_others_and_of_the_target_are_ignored() {
        let mut evidence = case(Trigger::LinkEnded, &[2, 9]);
        assert_eq!(evidence.observed(1, node(9), Observation::Reached), None);
        assert_eq!(evidence.observed(1, node(7), Observation::Reached), None);
        assert_eq!(evidence.observed(2, node(2), Observation::Reached), None);
        assert_eq!(evidence.handle_timeout(5_000), [ProbeOutcome::Unknown]);
    }

    #[test]
    fn cases_are_bounded_and_never_about_oneself() {
        let mut evidence = Evidence::new(node(255), &MembershipTuning::DEFAULT);
        let health = Health::new(&MembershipTuning::DEFAULT);
        let mut open =
            |number| evidence.open(0, (node(number), GENERATION), Trigger::LinkEnded, &[], &health).len();
        assert_eq!((0..=255).map(&mut open).sum::<usize>(), MAX_CASES);
        evidence.drop_case(&node(0));
        let own = evidence.open(0, (node(255), GENERATION), Trigger::LinkEnded, &[], &health);
        assert!(own.is_empty());
    }

    #[test]
    fn a_pause_of_this_daemon_does_not_count() {
        let mut evidence = case(Trigger::Silent, &[2]);
        assert_eq!(evidence.observed(1, node(1), Observation::Silent), None);
        evidence.postpone(30_000);
        assert_eq!(evidence.handle_timeout(31_500), []);
        assert_eq!(evidence.handle_timeout(32_000), [suspect_unheard(1)]);
    }
}
