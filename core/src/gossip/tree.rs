//! Who has news that have not come by themselves.
//!
//! Plumtree (J. Leitão, J. Pereira, L. Rodrigues, "Epidemic Broadcast Trees", 2007), specialised. Updates travel over
//! eager links; where the same update came twice, the second link is pruned for that origin. The neighbours in the ring
//! send each other summaries even so, and a summary of something that does not arrive soon by itself grafts the link
//! again: the tree has a hole there. (On other pruned links nothing is said; heartbeats carry fingerprints.) There is no message cache and no history of message ids, because the store is both: what matters is not
//! whether a message was seen but whether its content is here.
//!
//! There is a tree for each origin. Plumtree's authors share one among all senders, which makes every path that of the
//! first sender; with one set of pruned origins for each link, a few bytes each, nobody's news take detours.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::{NodeId, Stamp};

use super::link::LinkId;
use crate::tuning::SpreadTuning;

/// From where each origin's news come first: the way up its tree.
///
/// Whoever else brought the same news was pruned, and is a spare: it had them on another way. When a link ends, the
/// origins that came over it are grafted to a spare at once, before their next news are missed.
#[derive(Debug, Default)]
pub struct Parents(BTreeMap<NodeId, LinkId>);

impl Parents {
    /// News of an origin have come over `link` before any other.
    pub fn came_first(&mut self, origin: NodeId, link: LinkId) {
        self.0.insert(origin, link);
    }

    /// Whether this link is an origin's way up.
    #[must_use]
    pub fn is(&self, origin: &NodeId, link: LinkId) -> bool {
        self.0.get(origin) == Some(&link)
    }

    /// Whether an origin has a way up at all.
    #[must_use]
    pub fn has(&self, origin: &NodeId) -> bool {
        self.0.contains_key(origin)
    }

    /// A link has ended; the origins that came over it.
    pub fn drop_link(&mut self, link: LinkId) -> Vec<NodeId> {
        let came: Vec<_> =
            self.0.iter().filter(|(_, parent)| **parent == link).map(|(origin, _)| *origin).collect();
        for origin in &came {
            self.0.remove(origin);
        }
        came
    }

    /// An origin is not wanted any more.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        self.0.remove(origin);
    }
}

/// Origins of which others have more, by summaries.
#[derive(Debug)]
pub struct Grafts {
    tuning: SpreadTuning,
    missing: BTreeMap<NodeId, Missing>,
    /// The same by the time at which somebody has to be asked.
    due: BTreeSet<(u64, NodeId)>,
}

#[derive(Debug)]
struct Missing {
    stamp: Stamp,
    due_ms: u64,
    links: BTreeSet<LinkId>,
}

impl Grafts {
    /// Nothing is missing.
    #[must_use]
    pub fn new(tuning: SpreadTuning) -> Self {
        Self { tuning, missing: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// A summary on `link` says that its peer has this. It has some time to come by itself.
    pub fn summary(&mut self, now_ms: u64, link: LinkId, origin: NodeId, stamp: Stamp) {
        self.asked(now_ms, origin, stamp);
        if let Some(missing) = self.missing.get_mut(&origin) {
            if stamp > missing.stamp {
                missing.links.clear();
                missing.stamp = stamp;
            }
            if stamp == missing.stamp {
                missing.links.insert(link);
            }
        }
    }

    /// Somebody was asked for this; if it does not come, whoever else has it by then is asked.
    pub fn asked(&mut self, now_ms: u64, origin: NodeId, stamp: Stamp) {
        let due_ms = now_ms.saturating_add(self.tuning.graft_ms);
        let due = &mut self.due;
        self.missing.entry(origin).or_insert_with(|| {
            due.insert((due_ms, origin));
            Missing { stamp, due_ms, links: BTreeSet::new() }
        });
    }

    /// Whether something of this origin is missing.
    #[must_use]
    pub fn is_missing(&self, origin: &NodeId) -> bool {
        self.missing.contains_key(origin)
    }

    /// This much of an origin is here now.
    pub fn arrived(&mut self, origin: &NodeId, stamp: Stamp) {
        if self.missing.get(origin).is_some_and(|missing| missing.stamp <= stamp) {
            self.drop_origin(origin);
        }
    }

    /// An origin is not wanted any more.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        if let Some(missing) = self.missing.remove(origin) {
            self.due.remove(&(missing.due_ms, *origin));
        }
    }

    /// A link is gone, and whoever was to be asked on it.
    pub fn drop_link(&mut self, link: LinkId) {
        for missing in self.missing.values_mut() {
            missing.links.remove(&link);
        }
    }

    /// Whom to ask now, and for what. Each link is asked once; if the answer does not come, the next is asked after the
    /// same time. In the end it is left to chance whom to ask, once.
    pub fn due(&mut self, now_ms: u64) -> Vec<(Option<LinkId>, NodeId)> {
        let mut asks = Vec::new();
        let later_ms = now_ms.saturating_add(self.tuning.graft_ms.max(1));
        while let Some((_, origin)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.due.pop_first();
            let Some(missing) = self.missing.get_mut(&origin) else { continue };
            let link = missing.links.pop_first();
            asks.push((link, origin));
            if link.is_some() {
                missing.due_ms = later_ms;
                self.due.insert((later_ms, origin));
            } else {
                self.missing.remove(&origin);
            }
        }
        asks
    }

    /// When somebody will have to be asked; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::{Generation, Version};

    use super::*;

    fn stamp(version: u64) -> Stamp {
        Stamp { version: Version(version), ..Stamp::start(Generation::default()) }
    }

    const ORIGIN: NodeId = NodeId::MAX;
    const TUNING: SpreadTuning = SpreadTuning { graft_ms: 100, ..SpreadTuning::DEFAULT };

    #[test]
    fn what_comes_by_itself_is_not_asked_for() {
        let mut grafts = Grafts::new(TUNING);
        grafts.summary(0, LinkId(1), ORIGIN, stamp(3));
        grafts.arrived(&ORIGIN, stamp(2));
        assert_eq!(grafts.poll_timeout(), Some(100));
        grafts.arrived(&ORIGIN, stamp(3));
        assert_eq!(grafts.poll_timeout(), None);
        assert_eq!(grafts.due(1_000), []);
    }

    #[test]
    fn one_after_the_other_is_asked_for_what_does_not_come() {
        let mut grafts = Grafts::new(TUNING);
        for link in [1, 2, 3] {
            grafts.summary(0, LinkId(link), ORIGIN, stamp(3));
        }
        grafts.drop_link(LinkId(2));
        assert_eq!(grafts.due(99), []);
        assert_eq!(grafts.due(100), [(Some(LinkId(1)), ORIGIN)]);
        assert_eq!(grafts.due(150), []);
        assert_eq!(grafts.due(200), [(Some(LinkId(3)), ORIGIN)]);
        assert_eq!(grafts.due(300), [(None, ORIGIN)], "nobody is left to be asked");
        assert_eq!(grafts.poll_timeout(), None);
    }

    #[test]
    fn who_has_less_is_not_asked() {
        let mut grafts = Grafts::new(TUNING);
        grafts.summary(0, LinkId(1), ORIGIN, stamp(3));
        grafts.summary(10, LinkId(2), ORIGIN, stamp(4));
        grafts.summary(20, LinkId(3), ORIGIN, stamp(3));
        assert_eq!(grafts.due(100), [(Some(LinkId(2)), ORIGIN)]);
        assert_eq!(grafts.due(200), [(None, ORIGIN)], "nor who has less");
        assert!(!grafts.is_missing(&ORIGIN));
    }

    #[test]
    fn what_was_asked_for_in_vain_is_asked_of_whoever_has_it_by_then() {
        let mut grafts = Grafts::new(TUNING);
        grafts.asked(0, ORIGIN, stamp(0));
        assert!(grafts.is_missing(&ORIGIN));
        grafts.summary(50, LinkId(4), ORIGIN, stamp(0));
        assert_eq!(grafts.due(100), [(Some(LinkId(4)), ORIGIN)]);
        grafts.arrived(&ORIGIN, stamp(1));
        assert_eq!(grafts.poll_timeout(), None);
    }
}
