//! Which daemon a host name means, where several claim it and no certificate says whose it is.
//!
//! A name belongs to the daemon that had it first, until it leaves, is expelled, or has been gone for some time: a host
//! whose key was lost gets its name back by itself. Others that claim it meanwhile are shown, and not used. This is
//! remembered across restarts of this daemon, so that a restart is no opportunity to take a name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use pmd_protocol::peer::NodeId;

/// The number of names that are remembered. Beyond that, those whose daemons have been gone longest are forgotten.
const MAX_NAMES: usize = 65_536;

/// The daemons that host names belong to, by name in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldNames {
    hold_ms: u64,
    names: BTreeMap<String, Held>,
    /// The names whose daemons have failed, and when.
    gone: BTreeSet<(u64, String)>,
    /// How many names have got a holder, or lost it.
    changes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    id: NodeId,
    /// When its daemon failed, in milliseconds since the Unix epoch; none while it lives.
    gone_ms: Option<u64>,
}

impl HeldNames {
    /// No names yet; a daemon that fails keeps its name for `hold_ms` milliseconds.
    #[must_use]
    pub fn new(hold_ms: u64) -> HeldNames {
        HeldNames { hold_ms, ..HeldNames::default() }
    }

    /// The names that an earlier run of this daemon knew, from the text of [`Self::write`]. Their daemons count as gone
    /// from now on, until they are seen. Lines that are not understood are ignored: the file only gives a name to whom
    /// had it before.
    #[must_use]
    pub fn read(hold_ms: u64, now_ms: u64, text: &str) -> HeldNames {
        let held = |line: &str| {
            let (name, id) = line.split_once(' ')?;
            Some((name.to_owned(), Held { id: id.parse().ok()?, gone_ms: Some(now_ms) }))
        };
        let names: BTreeMap<_, _> = text.lines().filter_map(held).take(MAX_NAMES).collect();
        let gone = names.keys().map(|name| (now_ms, name.clone())).collect();
        HeldNames { hold_ms, names, gone, changes: 0 }
    }

    /// The names as text, one per line.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = String::new();
        for (name, held) in &self.names {
            // Writing to memory cannot fail.
            let _ = writeln!(text, "{name} {}", held.id);
        }
        text
    }

    /// Increases whenever the text of [`Self::write`] has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A live daemon claims a name. Returns whose it is.
    pub fn claim(&mut self, now_ms: u64, name: &str, id: NodeId) -> NodeId {
        if let Some(held) = self.names.get_mut(name) {
            if held.id != id
                && held.gone_ms.is_none_or(|gone_ms| now_ms < gone_ms.saturating_add(self.hold_ms))
            {
                return held.id;
            }
            if let Some(gone_ms) = held.gone_ms.take() {
                self.gone.remove(&(gone_ms, name.to_owned()));
            }
            if held.id == id {
                return id;
            }
        } else if self.names.len() >= MAX_NAMES {
            self.forget_one();
        }
        self.names.insert(name.to_owned(), Held { id, gone_ms: None });
        self.changes += 1;
        id
    }

    /// A daemon no longer claims a name: it has failed, or has `given_up` the name, by leaving or by taking another one.
    pub fn gone(&mut self, now_ms: u64, name: &str, id: NodeId, given_up: bool) {
        let Some(held) = self.names.get_mut(name).filter(|held| held.id == id) else { return };
        if given_up {
            self.forget(name);
        } else if held.gone_ms.is_none() {
            held.gone_ms = Some(now_ms);
            self.gone.insert((now_ms, name.to_owned()));
        }
    }

    /// Takes all names from a daemon. Returns them.
    pub fn release(&mut self, id: NodeId) -> Vec<String> {
        let names: Vec<_> =
            self.names.iter().filter(|(_, held)| held.id == id).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.forget(name));
        names
    }

    /// The daemon that a name belongs to, and when it failed.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<(NodeId, Option<u64>)> {
        self.names.get(name).map(|held| (held.id, held.gone_ms))
    }

    /// Whether a name belongs to nobody, or its daemon has been gone for too long.
    #[must_use]
    pub fn is_free(&self, now_ms: u64, name: &str) -> bool {
        self.names
            .get(name)
            .is_none_or(|held| held.gone_ms.is_some_and(|gone| self.has_expired(now_ms, gone)))
    }

    /// Forgets the names whose daemons have been gone for too long. Returns them.
    pub fn forget_expired(&mut self, now_ms: u64) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some((_, name)) =
            self.gone.first().filter(|(gone, _)| self.has_expired(now_ms, *gone)).cloned()
        {
            self.forget(&name);
            expired.push(name);
        }
        expired
    }

    fn has_expired(&self, now_ms: u64, gone_ms: u64) -> bool {
        now_ms >= gone_ms.saturating_add(self.hold_ms)
    }

    /// Forgets the name whose daemon has been gone longest.
    fn forget_one(&mut self) {
        if let Some((_, name)) = self.gone.first().cloned() {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(gone_ms) = self.names.remove(name).and_then(|held| held.gone_ms) {
            self.gone.remove(&(gone_ms, name.to_owned()));
        }
        self.changes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: NodeId = NodeId::new([9; 32]);
    const SECOND: NodeId = NodeId::new([1; 32]);
    const HOLD: u64 = 1_000;

    #[test]
    fn the_first_one_keeps_a_name_whatever_the_order_of_ids() {
        let mut names = HeldNames::new(HOLD);
        assert_eq!(names.claim(0, "db1", FIRST), FIRST);
        assert_eq!(names.claim(5, "db1", SECOND), FIRST);
        assert_eq!(names.claim(5, "db2", SECOND), SECOND, "other names are free");
        names.gone(10, "db1", SECOND, true);
        assert_eq!(names.holder("db1"), Some((FIRST, None)), "it was not its name");
    }

    #[test]
    fn a_name_is_free_once_its_daemon_has_left_or_been_gone_for_long() {
        let mut names = HeldNames::new(HOLD);
        names.claim(0, "db1", FIRST);
        names.gone(10, "db1", FIRST, true);
        assert_eq!(names.claim(10, "db1", SECOND), SECOND, "it has left");
        names.gone(20, "db1", SECOND, false);
        assert_eq!(names.claim(1_019, "db1", FIRST), SECOND, "it has failed just now");
        assert_eq!(names.claim(1_019, "db1", SECOND), SECOND, "and is back");
        assert_eq!(names.claim(9_999, "db1", FIRST), SECOND);
        names.gone(10_000, "db1", SECOND, false);
        assert_eq!(names.claim(11_000, "db1", FIRST), FIRST);
        assert_eq!(names.release(FIRST), ["db1"]);
        assert_eq!(names.claim(11_000, "db1", SECOND), SECOND, "an administrator has decided");
    }

    #[test]
    fn names_are_remembered_across_restarts() {
        let mut before = HeldNames::new(HOLD);
        before.claim(0, "db1", FIRST);
        before.claim(0, "db2", SECOND);
        let text = before.write() + "nonsense\nname id\n";
        let mut after = HeldNames::read(HOLD, 500, &text);
        assert_eq!(after.write(), before.write());
        assert_eq!(after.claim(1_499, "db1", SECOND), FIRST, "it may not have been seen yet");
        assert_eq!(after.claim(1_499, "db1", FIRST), FIRST);
        assert_eq!(after.claim(1_500, "db2", FIRST), FIRST, "it has not come back");
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let mut names = HeldNames::new(HOLD);
        names.claim(0, "db1", FIRST);
        for number in 0..2 * MAX_NAMES {
            let name = format!("x{number}");
            names.claim(0, &name, SECOND);
            names.gone(u64::try_from(number).expect("small"), &name, SECOND, false);
        }
        assert_eq!((names.names.len(), names.gone.len()), (MAX_NAMES, MAX_NAMES - 1));
        assert_eq!(names.holder("db1"), Some((FIRST, None)));
    }
}
