//! The texts of the core's alarms in the log.

use pmd_core::node::Alarm;
use pmd_protocol::peer::NodeId;

/// The member that an alarm is about, if any, and its text in the log. Both together are its kind for the log limit.
pub(super) fn describe(alarm: &Alarm) -> (Option<NodeId>, &'static str) {
    match alarm {
        Alarm::Forked(id) => (
            Some(*id),
            "two daemons use one identity because a key was copied: remove the key file of one of them and restart it",
        ),
        Alarm::IdentityTaken => (
            None,
            "another daemon has the same identity as this one: remove the key file of one of them and restart it",
        ),
        Alarm::Violation(id) => (Some(*id), "protocol violation by a peer, closing its link"),
        Alarm::Full => (
            None,
            "this host has more registrations than the cluster allows one host: others do not see the newest",
        ),
        Alarm::TableFull => (None, "the member table is full: new members are not seen"),
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
    }
}
