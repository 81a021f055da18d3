//! Broadcast trees: which links carry updates, and which peer to ask for an update that did not arrive.
//!
//! A variant of Plumtree (J. Leitão, J. Pereira, L. Rodrigues, "Epidemic Broadcast Trees", 2007). Updates travel over
//! eager links. If the same update arrives twice, the second link is pruned for its origin. Neighbours in the ring
//! still send each other summaries. If the update for a summary does not arrive soon, the tree is broken, and the link
//! is grafted again. (Other pruned links are silent; heartbeats carry fingerprints.) The store replaces Plumtree's
//! message cache and its history of message ids, because only the content matters, not whether a message was seen.
//!
//! Each origin has its own tree. Plumtree shares one tree among all senders, so all messages take the paths of the
//! first sender. A set of pruned origins for each link costs a few bytes per origin and spares updates the detour.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::{NodeId, Stamp};

use super::link::LinkId;
use crate::tuning::GossipTuning;

/// The link on which each origin's updates arrive first: the parent in its tree.
///
/// The other links on which they arrived were pruned and serve as backups. When a parent link ends, its origins are
/// grafted to a backup at once, before their next update is missed.
#[derive(Debug, Default)]
pub struct Parents(BTreeMap<NodeId, LinkId>);

impl Parents {
    /// Notes that an update of an origin arrived on `link` first.
    pub fn came_first(&mut self, origin: NodeId, link: LinkId) {
        self.0.insert(origin, link);
    }

    /// Whether this link is the parent for an origin.
    #[must_use]
    pub fn is(&self, origin: &NodeId, link: LinkId) -> bool {
        self.0.get(origin) == Some(&link)
    }

    /// Whether an origin has a parent.
    #[must_use]
    pub fn has(&self, origin: &NodeId) -> bool {
        self.0.contains_key(origin)
    }

    /// Removes a link that has ended, and returns the origins whose parent it was.
    pub fn drop_link(&mut self, link: LinkId) -> Vec<NodeId> {
        let orphans: Vec<_> =
            self.0.iter().filter(|(_, parent)| **parent == link).map(|(origin, _)| *origin).collect();
        for origin in &orphans {
            self.0.remove(origin);
        }
        orphans
    }

    /// Forgets an origin that is no longer of interest.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        self.0.remove(origin);
    }
}

/// How often any peer is asked when none is known to have what is missing. Later, heartbeats show what is still missing.
const MAX_BLIND: u32 = 4;

/// Origins of which other members have newer versions, according to summaries.
#[derive(Debug)]
pub struct Grafts {
    tuning: GossipTuning,
    missing: BTreeMap<NodeId, Missing>,
    /// The missing origins, by the time at which a peer must be asked.
    due: BTreeSet<(u64, NodeId)>,
}

#[derive(Debug)]
struct Missing {
    stamp: Stamp,
    due_ms: u64,
    links: BTreeSet<LinkId>,
    /// The link whose peer was asked last.
    asked: Option<LinkId>,
    /// How often any peer was asked, because none was known to have it.
    blind: u32,
}

impl Grafts {
    /// No grafts: nothing is missing.
    #[must_use]
    pub fn new(tuning: GossipTuning) -> Self {
        Self { tuning, missing: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Notes a summary on `link`: its peer has this version. The update itself gets some time to arrive.
    pub fn summary(&mut self, now_ms: u64, link: LinkId, origin: NodeId, stamp: Stamp) {
        self.note(now_ms.saturating_add(self.tuning.graft_ms), origin, stamp);
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

    /// Notes that this version was requested on `link`. If it does not arrive, peers that have it by then are asked.
    pub fn asked(&mut self, now_ms: u64, link: LinkId, origin: NodeId, stamp: Stamp) {
        self.note(now_ms.saturating_add(self.tuning.answer_ms), origin, stamp);
        if let Some(missing) = self.missing.get_mut(&origin) {
            missing.asked = Some(link);
        }
    }

    fn note(&mut self, due_ms: u64, origin: NodeId, stamp: Stamp) {
        let due = &mut self.due;
        self.missing.entry(origin).or_insert_with(|| {
            due.insert((due_ms, origin));
            Missing { stamp, due_ms, links: BTreeSet::new(), asked: None, blind: 0 }
        });
    }

    /// Whether an update of this origin is missing.
    #[must_use]
    pub fn is_missing(&self, origin: &NodeId) -> bool {
        self.missing.contains_key(origin)
    }

    /// Notes that this version of an origin has arrived.
    pub fn arrived(&mut self, origin: &NodeId, stamp: Stamp) {
        if self.missing.get(origin).is_some_and(|missing| missing.stamp <= stamp) {
            self.drop_origin(origin);
        }
    }

    /// Forgets an origin that is no longer of interest.
    pub fn drop_origin(&mut self, origin: &NodeId) {
        if let Some(missing) = self.missing.remove(origin) {
            self.due.remove(&(missing.due_ms, *origin));
        }
    }

    /// Forgets a link that has ended, so that its peer is not asked, and others at once if it was.
    pub fn drop_link(&mut self, now_ms: u64, link: LinkId) {
        for (origin, missing) in &mut self.missing {
            missing.links.remove(&link);
            if missing.asked == Some(link) {
                missing.asked = None;
                self.due.remove(&(missing.due_ms, *origin));
                missing.due_ms = now_ms;
                self.due.insert((now_ms, *origin));
            }
        }
    }

    /// The links to ask now, and the origin to request on each. Each link is asked once; if no answer arrives, the next
    /// link is asked after the same time. `None` means any link; it comes last, a few times and more and more slowly.
    pub fn due(&mut self, now_ms: u64) -> Vec<(Option<LinkId>, NodeId)> {
        let mut asks = Vec::new();
        let answer_ms = self.tuning.answer_ms.max(1);
        while let Some((_, origin)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.due.pop_first();
            let Some(missing) = self.missing.get_mut(&origin) else { continue };
            let link = missing.links.pop_first();
            let pause_ms = if link.is_some() {
                answer_ms
            } else {
                missing.blind += 1;
                answer_ms >> (MAX_BLIND - missing.blind.min(MAX_BLIND))
            };
            if missing.blind > MAX_BLIND {
                self.missing.remove(&origin);
                continue;
            }
            asks.push((link, origin));
            missing.asked = link;
            missing.due_ms = now_ms.saturating_add(pause_ms.max(1));
            self.due.insert((missing.due_ms, origin));
        }
        asks
    }

    /// When the next peer must be asked; monotonic milliseconds.
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
    const TUNING: GossipTuning = GossipTuning { graft_ms: 100, answer_ms: 100, ..GossipTuning::DEFAULT };

    #[test]
    fn updates_that_arrive_are_not_asked_for() {
        let mut grafts = Grafts::new(TUNING);
        grafts.summary(0, LinkId(1), ORIGIN, stamp(3));
        grafts.arrived(&ORIGIN, stamp(2));
        assert_eq!(grafts.poll_timeout(), Some(100));
        grafts.arrived(&ORIGIN, stamp(3));
        assert_eq!(grafts.poll_timeout(), None);
        assert_eq!(grafts.due(1_000), []);
    }

    #[test]
    fn one_peer_after_the_other_is_asked() {
        let mut grafts = Grafts::new(TUNING);
        for link in [1, 2, 3] {
            grafts.summary(0, LinkId(link), ORIGIN, stamp(3));
        }
        grafts.drop_link(0, LinkId(2));
        assert_eq!(grafts.due(99), []);
        assert_eq!(grafts.due(100), [(Some(LinkId(1)), ORIGIN)]);
        assert_eq!(grafts.due(150), []);
        assert_eq!(grafts.due(200), [(Some(LinkId(3)), ORIGIN)]);
        for now_ms in [300, 312, 337, 387] {
            assert_eq!(grafts.due(now_ms - 1), []);
            assert_eq!(grafts.due(now_ms), [(None, ORIGIN)], "no link is left");
        }
        assert_eq!(grafts.due(487), [], "anybody was asked often enough");
        assert_eq!(grafts.poll_timeout(), None);
    }

    #[test]
    fn peers_with_less_are_not_asked() {
        let mut grafts = Grafts::new(TUNING);
        grafts.summary(0, LinkId(1), ORIGIN, stamp(3));
        grafts.summary(10, LinkId(2), ORIGIN, stamp(4));
        grafts.summary(20, LinkId(3), ORIGIN, stamp(3));
        assert_eq!(grafts.due(100), [(Some(LinkId(2)), ORIGIN)]);
        assert_eq!(grafts.due(200), [(None, ORIGIN)], "peers with older versions are still not asked");
    }

    #[test]
    fn after_a_vain_request_a_peer_that_has_it_by_then_is_asked() {
        let mut grafts = Grafts::new(TUNING);
        grafts.asked(0, LinkId(9), ORIGIN, stamp(0));
        assert!(grafts.is_missing(&ORIGIN));
        grafts.summary(50, LinkId(4), ORIGIN, stamp(0));
        assert_eq!(grafts.due(100), [(Some(LinkId(4)), ORIGIN)]);
        grafts.arrived(&ORIGIN, stamp(1));
        assert_eq!(grafts.poll_timeout(), None);
    }
}
