//! From a clue to a verdict: what happens when a link ends or falls silent.
//!
//! ```text
//!              ┌────────────── somebody reached it ──────────────▶ Cleared
//!   clue ──▶ Case: dial it, ask helpers to
//!              ├── two observers: nobody listens there ──────────▶ Suspect, short wait
//!              └── all answered or time is over, none reached it ▶ Suspect, usual wait
//! ```
//!
//! A clue never kills. It makes this daemon look, directly and through others, at once and not when the turn of the
//! accused comes; the verdict is a suspicion like any other, to which the accused can object. Nothing here does
//! anything: the caller dials, asks and suspects.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::frame::Sight;
use pmd_protocol::peer::{Generation, NodeId};

use crate::tuning::MembershipTuning;

/// How many cases can be open. Beyond it clues are ignored: then it is this daemon's network that is gone, or half the
/// cluster, and the turns of the membership protocol will tell.
pub const MAX_CASES: usize = 64;

/// What raised a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clue {
    /// The link ended without a farewell: end of stream, or reset.
    Ended,
    /// It has been silent for surprisingly long, or somebody takes it for dead.
    Silent,
    /// A dial has failed.
    Unreached,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// Dial the accused, and report with this token.
    Dial {
        /// For the result.
        token: u64,
        /// Whom.
        accused: NodeId,
    },
    /// Ask a helper to do so.
    Ask {
        /// For the result.
        token: u64,
        /// Whom to ask.
        helper: NodeId,
        /// About whom.
        accused: NodeId,
        /// In which life.
        generation: Generation,
    },
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody reached the accused.
    Cleared {
        /// Who.
        accused: NodeId,
        /// Whether this daemon could not: then the fault is more likely here.
        only_by_others: bool,
    },
    /// Nobody did.
    Suspect {
        /// Who.
        accused: NodeId,
        /// In which life.
        generation: Generation,
        /// Whether two observers were told that nobody listens there.
        refused: bool,
        /// How many observers reported in time, this daemon included, and did not reach it.
        observers: usize,
    },
}

/// All open cases.
#[derive(Debug)]
pub struct Evidence {
    me: NodeId,
    wait_ms: u64,
    next_token: u64,
    cases: BTreeMap<NodeId, Case>,
}

#[derive(Debug)]
struct Case {
    token: u64,
    generation: Generation,
    clue: Clue,
    asked: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, Sight>,
    deadline_ms: u64,
}

impl Evidence {
    /// No cases yet.
    #[must_use]
    pub fn new(me: NodeId, tuning: &MembershipTuning) -> Self {
        Self { me, wait_ms: tuning.probe_period_ms, next_token: 1, cases: BTreeMap::new() }
    }

    /// Looks into a clue about a member, with the help of `helpers`. Nothing to do if there is a case already.
    ///
    /// `wait_ms` stretches with this daemon's doubts about itself, see [`Health::stretch`](super::health::Health).
    pub fn clue(
        &mut self,
        now_ms: u64,
        (accused, generation): (NodeId, Generation),
        clue: Clue,
        helpers: &[NodeId],
        stretch: impl Fn(u64) -> u64,
    ) -> Vec<Inquiry> {
        if accused == self.me || self.cases.contains_key(&accused) || self.cases.len() >= MAX_CASES {
            return Vec::new();
        }
        let token = self.next_token;
        self.next_token += 1;
        let mut asked: BTreeSet<_> = helpers.iter().copied().filter(|helper| *helper != accused).collect();
        let mut inquiries = vec![Inquiry::Dial { token, accused }];
        inquiries.extend(asked.iter().map(|helper| Inquiry::Ask {
            token,
            helper: *helper,
            accused,
            generation,
        }));
        asked.insert(self.me);
        let deadline_ms = now_ms.saturating_add(stretch(self.wait_ms));
        let case = Case { token, generation, clue, asked, seen: BTreeMap::new(), deadline_ms };
        self.cases.insert(accused, case);
        inquiries
    }

    /// What `observer` saw when it dialled; the verdict if that decides the case. Answers that nobody asked for are
    /// ignored.
    pub fn seen(&mut self, token: u64, observer: NodeId, sight: Sight) -> Option<Verdict> {
        let (accused, case) = self.cases.iter_mut().find(|(_, case)| case.token == token)?;
        if !case.asked.contains(&observer) {
            return None;
        }
        case.seen.insert(observer, sight);
        let verdict = case.verdict(*accused, self.me, false)?;
        self.close(&verdict);
        Some(verdict)
    }

    /// The accused has shown itself, or is gone for good: there is nothing to look into.
    pub fn drop_case(&mut self, accused: &NodeId) {
        self.cases.remove(accused);
    }

    /// Verdicts of cases whose time is over.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Vec<Verdict> {
        let due = self.cases.iter().filter(|(_, case)| case.deadline_ms <= now_ms);
        let verdicts: Vec<_> =
            due.filter_map(|(accused, case)| case.verdict(*accused, self.me, true)).collect();
        for verdict in &verdicts {
            self.close(verdict);
        }
        verdicts
    }

    /// When the next case's time is over; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.cases.values().map(|case| case.deadline_ms).min()
    }

    /// This daemon was not running for `lag_ms`: answers may have waited for it.
    pub fn postpone(&mut self, lag_ms: u64) {
        for case in self.cases.values_mut() {
            case.deadline_ms = case.deadline_ms.saturating_add(lag_ms);
        }
    }

    fn close(&mut self, verdict: &Verdict) {
        let (Verdict::Cleared { accused, .. } | Verdict::Suspect { accused, .. }) = verdict;
        self.cases.remove(accused);
    }
}

impl Case {
    fn verdict(&self, accused: NodeId, me: NodeId, time_is_over: bool) -> Option<Verdict> {
        if self.seen.values().any(|sight| *sight == Sight::Reached) {
            let only_by_others = self.seen.get(&me).is_some_and(|mine| *mine != Sight::Reached);
            return Some(Verdict::Cleared { accused, only_by_others });
        }
        let mut refusals = self.seen.values().filter(|sight| **sight == Sight::Refused).count();
        // Where there is nobody else to ask, the end of the link stands in for the second observer: the accused's host
        // has said twice that the process is gone.
        if self.asked.len() == 1 && self.clue == Clue::Ended && refusals == 1 {
            refusals = 2;
        }
        let refused = refusals >= 2;
        let complete = self.seen.len() == self.asked.len();
        (refused || complete || time_is_over).then_some(Verdict::Suspect {
            accused,
            generation: self.generation,
            refused,
            observers: self.seen.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Generation = Generation { boot_ms: 5, nonce: 0 };

    fn node(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    /// A case about node 9, opened by node 1 at 1,000 ms.
    fn case(clue: Clue, helpers: &[u8]) -> Evidence {
        let mut evidence = Evidence::new(node(1), &MembershipTuning::DEFAULT);
        let helpers: Vec<_> = helpers.iter().map(|helper| node(*helper)).collect();
        let inquiries = evidence.clue(1_000, (node(9), LIFE), clue, &helpers, |wait| wait);
        assert_eq!(inquiries.len(), 1 + helpers.iter().filter(|helper| **helper != node(9)).count());
        assert_eq!(inquiries.first(), Some(&Inquiry::Dial { token: 1, accused: node(9) }));
        evidence
    }

    fn suspect(refused: bool, observers: usize) -> Verdict {
        Verdict::Suspect { accused: node(9), generation: LIFE, refused, observers }
    }

    #[test]
    fn whoever_reaches_it_clears_it() {
        let mut evidence = case(Clue::Silent, &[2, 3]);
        assert_eq!(evidence.seen(1, node(1), Sight::Silent), None);
        let cleared = Verdict::Cleared { accused: node(9), only_by_others: true };
        assert_eq!(evidence.seen(1, node(2), Sight::Reached), Some(cleared));
        assert_eq!(evidence.seen(1, node(3), Sight::Refused), None, "closed");
        assert_eq!(evidence.poll_timeout(), None);
    }

    #[test]
    fn two_refusals_decide_at_once() {
        let mut evidence = case(Clue::Ended, &[2, 3]);
        assert_eq!(evidence.seen(1, node(1), Sight::Refused), None, "one observer is not enough");
        assert_eq!(evidence.seen(1, node(2), Sight::Refused), Some(suspect(true, 2)));
    }

    #[test]
    fn one_observer_counts_once() {
        let mut evidence = case(Clue::Ended, &[2, 3]);
        for _ in 0..3 {
            assert_eq!(evidence.seen(1, node(2), Sight::Refused), None);
        }
    }

    #[test]
    fn silence_waits_for_everybody_or_the_end_of_time() {
        let mut evidence = case(Clue::Silent, &[2]);
        assert_eq!(evidence.seen(1, node(1), Sight::Silent), None);
        assert_eq!(evidence.seen(1, node(2), Sight::Silent), Some(suspect(false, 2)));
        let mut evidence = case(Clue::Silent, &[2]);
        assert_eq!(evidence.poll_timeout(), Some(2_000));
        assert_eq!(evidence.handle_timeout(1_999), []);
        assert_eq!(evidence.handle_timeout(2_000), [suspect(false, 0)]);
        assert_eq!(evidence.handle_timeout(2_000), []);
    }

    #[test]
    fn alone_the_end_of_the_link_is_the_second_observer() {
        assert_eq!(case(Clue::Ended, &[]).seen(1, node(1), Sight::Refused), Some(suspect(true, 1)));
        assert_eq!(case(Clue::Silent, &[]).seen(1, node(1), Sight::Refused), Some(suspect(false, 1)));
        assert_eq!(case(Clue::Ended, &[]).seen(1, node(1), Sight::Silent), Some(suspect(false, 1)));
    }

    #[test]
    fn strangers_and_the_accused_are_not_heard() {
        let mut evidence = case(Clue::Ended, &[2, 9]);
        assert_eq!(evidence.seen(1, node(9), Sight::Reached), None);
        assert_eq!(evidence.seen(1, node(7), Sight::Reached), None);
        assert_eq!(evidence.seen(2, node(2), Sight::Reached), None);
        assert_eq!(evidence.handle_timeout(5_000), [suspect(false, 0)]);
    }

    #[test]
    fn cases_are_bounded_and_not_about_oneself() {
        let mut evidence = Evidence::new(node(255), &MembershipTuning::DEFAULT);
        let opened = (0..=255).filter(|number| {
            !evidence.clue(0, (node(*number), LIFE), Clue::Ended, &[], |wait| wait).is_empty()
        });
        assert_eq!(opened.count(), MAX_CASES);
        evidence.drop_case(&node(0));
        assert!(evidence.clue(0, (node(255), LIFE), Clue::Ended, &[], |wait| wait).is_empty());
    }

    #[test]
    fn a_pause_of_this_daemon_does_not_count() {
        let mut evidence = case(Clue::Silent, &[2]);
        evidence.postpone(30_000);
        assert_eq!(evidence.handle_timeout(31_500), []);
        assert_eq!(evidence.handle_timeout(32_000), [suspect(false, 0)]);
    }
}
