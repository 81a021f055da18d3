//! Problems that the core reports: their texts in the log, and those that are shown to operators.

use std::borrow::Cow;
use std::mem::discriminant;

use pmd_core::node::Alarm;
use pmd_protocol::peer::NodeId;

/// Alarms that are kept for display: more than anybody reads.
const MOST: usize = 32;
/// What a member has done is shown for this long after it did it last: long enough to be seen by whoever looks once an
/// hour.
const SHOWN_MS: u64 = 2 * 60 * 60 * 1_000;

/// An alarm that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// What it is.
    pub alarm: Alarm,
    /// The host name of the member that it is about, as far as it was known; empty otherwise.
    pub host: String,
    at_ms: u64,
}

/// The alarms that are shown: one of each kind for each member. Times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Alarms(Vec<Raised>);

impl Alarms {
    /// Notes an alarm about the member on `host`.
    pub(super) fn raise(&mut self, now_ms: u64, alarm: Alarm, host: String) {
        self.expire(now_ms);
        self.0.retain(|known| kind(&known.alarm) != kind(&alarm));
        if self.0.len() >= MOST {
            // Members can cause any number of alarms of their own, but must not hide those that last.
            let oldest = self.0.iter().position(|known| is_deed(&known.alarm));
            self.0.remove(oldest.unwrap_or_default());
        }
        self.0.push(Raised { alarm, host, at_ms: now_ms });
    }

    /// The alarms that are shown now, the oldest first.
    pub(super) fn shown(&self, now_ms: u64) -> Vec<Raised> {
        self.0.iter().filter(|raised| raised.is_shown(now_ms)).cloned().collect()
    }

    fn expire(&mut self, now_ms: u64) {
        self.0.retain(|raised| raised.is_shown(now_ms));
    }
}

impl Raised {
    fn is_shown(&self, now_ms: u64) -> bool {
        !is_deed(&self.alarm) || now_ms.saturating_sub(self.at_ms) < SHOWN_MS
    }
}

/// Whether an alarm is about what a member has done, which is over at some time. The others are about a state that lasts
/// until somebody changes it.
fn is_deed(alarm: &Alarm) -> bool {
    match alarm {
        Alarm::Violation(..)
        | Alarm::Introductions(_)
        | Alarm::IgnoredDecision(_)
        | Alarm::TooManyDecisions(_)
        | Alarm::Future(_) => true,
        Alarm::Forked(_) | Alarm::IdentityTaken | Alarm::Full | Alarm::TableFull => false,
    }
}

/// Alarms of the same kind replace each other.
fn kind(alarm: &Alarm) -> (std::mem::Discriminant<Alarm>, Option<NodeId>) {
    (discriminant(alarm), describe(alarm).0)
}

/// The member that an alarm is about, if any, and its text in the log. Both together are its kind for the log limit.
pub(super) fn describe(alarm: &Alarm) -> (Option<NodeId>, Cow<'static, str>) {
    let (id, text) = match alarm {
        Alarm::Violation(id, rule) => {
            return (Some(*id), format!("protocol violation by a peer, closing its link: {rule}").into());
        }
        Alarm::Forked(id) => (
            Some(*id),
            "two daemons use one identity because a key was copied: remove the key file of one of them and restart it",
        ),
        Alarm::IdentityTaken => (
            None,
            "another daemon has the same identity as this one: remove the key file of one of them and restart it",
        ),
        Alarm::Full => (
            None,
            "this host has more registrations than the cluster allows one host: others do not see the newest",
        ),
        Alarm::TableFull => (None, "the member table is full: new members are not seen"),
        Alarm::Introductions(id) => {
            (Some(*id), "a peer introduces too many new members at once: those beyond the limit are not seen")
        }
        Alarm::IgnoredDecision(id) => {
            (Some(*id), "ignored a decision to expel a member: its author is not an administrator")
        }
        Alarm::TooManyDecisions(id) => {
            (Some(*id), "ignored a decision to expel or readmit a member: there are too many from one daemon")
        }
        Alarm::Future(id) => (
            Some(*id),
            "rejected a member whose start time is more than 100 years ahead of this host's clock: check both clocks",
        ),
    };
    (id, text.into())
}

#[cfg(test)]
mod tests {
    use pmd_core::node::Rule;

    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn shown(alarms: &Alarms, now_ms: u64) -> Vec<Alarm> {
        alarms.shown(now_ms).into_iter().map(|raised| raised.alarm).collect()
    }

    #[test]
    fn what_a_member_has_done_is_shown_once_and_for_some_time() {
        let mut alarms = Alarms::default();
        alarms.raise(0, Alarm::Forked(id(9)), String::new());
        alarms.raise(1, Alarm::Violation(id(1), Rule::ForgedEntries), "h1".into());
        alarms.raise(2, Alarm::Violation(id(2), Rule::NoFrame), "h2".into());
        alarms.raise(3, Alarm::Violation(id(1), Rule::OtherHostName), "h1".into());
        let of_first = Alarm::Violation(id(1), Rule::OtherHostName);
        assert_eq!(
            shown(&alarms, 3),
            [Alarm::Forked(id(9)), Alarm::Violation(id(2), Rule::NoFrame), of_first]
        );
        assert_eq!(shown(&alarms, 2 + SHOWN_MS), [Alarm::Forked(id(9)), of_first]);
        assert_eq!(shown(&alarms, 3 + SHOWN_MS), [Alarm::Forked(id(9))]);
    }

    #[test]
    fn any_number_of_violators_hide_no_alarm_that_lasts() {
        let mut alarms = Alarms::default();
        alarms.raise(0, Alarm::IdentityTaken, String::new());
        alarms.raise(0, Alarm::Forked(id(1)), String::new());
        (0..=255).for_each(|number| {
            alarms.raise(1, Alarm::Violation(id(number), Rule::NoFrame), String::new());
        });
        let all = shown(&alarms, 1);
        assert_eq!(all.len(), MOST);
        assert_eq!(all[..2], [Alarm::IdentityTaken, Alarm::Forked(id(1))]);
        assert_eq!(all.last(), Some(&Alarm::Violation(id(255), Rule::NoFrame)));
    }
}
