//! The overlay network: which members this daemon keeps links to.
//!
//! Members form a ring in the order of their ids. Each daemon keeps links to its next two members and to three random
//! ones, and accepts links from others, which makes about ten links each. Up to six members form a full mesh. Ids are
//! hashes, so the ring is in random order and neighbours rarely share a rack. The successors keep the graph connected;
//! the random links keep its diameter small and make it robust.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::NodeId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use crate::tuning::GossipTuning;

/// How long a member that has too many links is no random target. Its links become fewer slowly.
const DECLINED_MS: u64 = 600_000;

/// How long after the number of members has doubled random targets are drawn again, at the earliest, and how long after that
/// at the latest.
const REDRAW_MS: u64 = 10_000;

/// The links that this daemon wants, and when to dial them next.
#[derive(Debug)]
pub struct Overlay {
    me: NodeId,
    tuning: GossipTuning,
    members: BTreeSet<NodeId>,
    /// The next and the previous member in the ring.
    near: BTreeSet<NodeId>,
    random: BTreeSet<NodeId>,
    /// How many members there were when the random targets were drawn.
    drawn_of: usize,
    /// When they are drawn again, if there are twice as many by now.
    redraw_ms: Option<u64>,
    /// Members that have no room for a link, and until when they are no random targets.
    declined: BTreeMap<NodeId, u64>,
    redials: BTreeMap<NodeId, Redial>,
    changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Redial {
    at_ms: u64,
    pause_ms: u64,
    /// Whether a dial is in progress.
    pending: bool,
}

impl Overlay {
    /// The overlay of a daemon that knows no other member.
    #[must_use]
    pub fn new(me: NodeId, tuning: GossipTuning) -> Self {
        Self {
            me,
            tuning,
            members: BTreeSet::new(),
            near: BTreeSet::new(),
            random: BTreeSet::new(),
            drawn_of: 0,
            redraw_ms: None,
            declined: BTreeMap::new(),
            redials: BTreeMap::new(),
            changed: false,
        }
    }

    /// Adds a live member.
    pub fn add(&mut self, id: NodeId) {
        if id != self.me && self.members.insert(id) {
            self.changed = true;
            self.near = self.neighbours();
            self.redials.remove(&id);
        }
    }

    /// Removes a member.
    pub fn remove(&mut self, id: &NodeId) {
        if self.members.remove(id) {
            self.changed = true;
            self.near = self.neighbours();
        }
        self.random.remove(id);
        self.declined.remove(id);
        self.redials.remove(id);
    }

    /// Whether members were added or removed since the last call, which may change the targets.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The members that this daemon wants links to. Random targets are kept for as long as they are alive, but drawn again
    /// after the number of members has doubled: those that were known first would otherwise be the targets of all who joined
    /// later. That waits until a cluster that starts has found itself, because each new link costs two handshakes and tells
    /// the peer about all members.
    pub fn targets(&mut self, now_ms: u64, rng: &mut ChaCha8Rng) -> BTreeSet<NodeId> {
        let mut targets = self.successors();
        if self.drawn_of == 0 {
            self.drawn_of = self.members.len();
        } else if self.members.len() >= self.drawn_of.saturating_mul(2) {
            let redraw_ms =
                *self.redraw_ms.get_or_insert_with(|| now_ms + REDRAW_MS + rng.random_range(0..=REDRAW_MS));
            if redraw_ms <= now_ms {
                self.random.clear();
                self.drawn_of = self.members.len();
                self.redraw_ms = None;
            }
        } else {
            self.redraw_ms = None;
        }
        self.random.retain(|id| !targets.contains(id));
        while self.random.len() < self.tuning.random {
            let others = self.members.iter().filter(|id| {
                !targets.contains(*id) && !self.random.contains(*id) && !self.declined.contains_key(id)
            });
            let Some(choice) = others.choose(rng).copied() else { break };
            self.random.insert(choice);
        }
        targets.extend(&self.random);
        targets
    }

    /// A random member that this daemon has no link to.
    pub fn outsider(&mut self, linked: &BTreeSet<NodeId>, rng: &mut ChaCha8Rng) -> Option<NodeId> {
        self.members.iter().filter(|id| !linked.contains(*id)).choose(rng).copied()
    }

    /// The targets to dial now. A dial in progress is not repeated until its result is known.
    pub fn dials(&mut self, now_ms: u64, linked: &BTreeSet<NodeId>, rng: &mut ChaCha8Rng) -> Vec<NodeId> {
        self.declined.retain(|_, until_ms| now_ms < *until_ms);
        let targets = self.targets(now_ms, rng);
        // A member that has a link by now need not be dialled, even if another dial to it failed.
        self.redials.retain(|id, redial| !linked.contains(id) && (redial.pending || targets.contains(id)));
        let mut dials = Vec::new();
        for id in targets.into_iter().filter(|id| !linked.contains(id)) {
            let redial =
                self.redials.entry(id).or_insert(Redial { at_ms: now_ms, pause_ms: 0, pending: false });
            if !redial.pending && redial.at_ms <= now_ms {
                redial.pending = true;
                dials.push(id);
            }
        }
        dials
    }

    /// A link to a member has come up.
    pub fn linked(&mut self, id: &NodeId) {
        self.redials.remove(id);
    }

    /// A member has closed a link because it has too many. Another random target takes its place for a while; a
    /// successor stays one, because the ring needs that link.
    pub fn declined(&mut self, now_ms: u64, id: NodeId) {
        if self.random.remove(&id) {
            self.declined.insert(id, now_ms.saturating_add(DECLINED_MS));
            self.redials.remove(&id);
            self.changed = true;
        }
    }

    /// A dial has failed or a link has ended. The pause before the next dial doubles each time, plus or minus a
    /// quarter.
    pub fn failed(&mut self, now_ms: u64, id: NodeId, rng: &mut ChaCha8Rng) {
        let redial = self.redials.entry(id).or_insert(Redial { at_ms: now_ms, pause_ms: 0, pending: false });
        let doubled = redial.pause_ms.saturating_mul(2);
        redial.pause_ms =
            doubled.clamp(self.tuning.redial_ms, self.tuning.redial_max_ms.max(self.tuning.redial_ms));
        let quarter = redial.pause_ms / 4;
        let jitter = rng.random_range(0..=quarter.saturating_mul(2));
        redial.at_ms = now_ms.saturating_add(redial.pause_ms - quarter).saturating_add(jitter);
        redial.pending = false;
    }

    /// When the next dial is due; monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let redials = self.redials.values().filter(|redial| !redial.pending).map(|redial| redial.at_ms);
        redials.chain(self.redraw_ms).min()
    }

    /// The members that have this daemon among their successors in the ring, and need a link to it.
    #[must_use]
    pub fn predecessors(&self) -> BTreeSet<NodeId> {
        self.preceding().take(self.tuning.successors).copied().collect()
    }

    /// Whether a member is this daemon's successor or predecessor in the ring.
    #[must_use]
    pub fn is_near(&self, id: &NodeId) -> bool {
        self.near.contains(id)
    }

    /// Whether a member is sent what nobody has asked for: a neighbour in the ring, or one that this daemon wants a link to.
    ///
    /// From every daemon these links lead to all others, because the ring does. Half of the links are left out: those that
    /// the peer wants, on which it sends.
    #[must_use]
    pub fn is_pushed_to(&self, id: &NodeId) -> bool {
        let mut successors = self.following().take(self.tuning.successors);
        self.is_near(id) || self.random.contains(id) || successors.any(|next| next == id)
    }

    fn neighbours(&self) -> BTreeSet<NodeId> {
        self.following().next().into_iter().chain(self.preceding().next()).copied().collect()
    }

    fn successors(&self) -> BTreeSet<NodeId> {
        self.following().take(self.tuning.successors).copied().collect()
    }

    /// The other members in ring order, starting after this daemon.
    fn following(&self) -> impl Iterator<Item = &NodeId> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.members.range((Excluded(self.me), Unbounded)).chain(self.members.range(..self.me))
    }

    /// The other members in reverse ring order, starting before this daemon.
    fn preceding(&self) -> impl Iterator<Item = &NodeId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let before = self.members.range(..self.me).rev();
        before.chain(self.members.range((Excluded(self.me), Unbounded)).rev())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::SeedableRng;

    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn ids(count: usize) -> Vec<NodeId> {
        let mut rng = rng(7);
        (0..count).map(|_| NodeId::new(rng.random())).collect()
    }

    /// The neighbours of each of `count` members. A link counts for both ends.
    fn graph(count: usize) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let ids = ids(count);
        let mut graph: BTreeMap<_, BTreeSet<_>> = ids.iter().map(|id| (*id, BTreeSet::new())).collect();
        for (number, id) in (0..).zip(&ids) {
            let mut overlay = Overlay::new(*id, GossipTuning::DEFAULT);
            ids.iter().for_each(|other| overlay.add(*other));
            for target in overlay.targets(0, &mut rng(number)) {
                graph.entry(*id).or_default().insert(target);
                graph.entry(target).or_default().insert(*id);
            }
        }
        graph
    }

    /// The number of hops from `from` to the farthest member, and the number of members reached.
    fn reach(graph: &BTreeMap<NodeId, BTreeSet<NodeId>>, from: NodeId) -> (usize, usize) {
        let mut hops = BTreeMap::from([(from, 0)]);
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            let next = hops.get(&id).map_or(0, |hops| hops + 1);
            for neighbour in graph.get(&id).into_iter().flatten() {
                if graph.contains_key(neighbour) && !hops.contains_key(neighbour) {
                    hops.insert(*neighbour, next);
                    queue.push_back(*neighbour);
                }
            }
        }
        (hops.values().copied().max().unwrap_or(0), hops.len())
    }

    #[test]
    fn small_clusters_are_a_full_mesh() {
        for (id, neighbours) in graph(6) {
            assert_eq!(neighbours.len(), 5, "{id}");
        }
    }

    #[test]
    fn a_thousand_members_are_few_links_and_few_hops_apart() {
        let graph = graph(1_000);
        let links: usize = graph.values().map(BTreeSet::len).sum();
        assert!(links / 1_000 <= 10);
        let farthest = graph.keys().step_by(50).map(|id| reach(&graph, *id));
        assert!(farthest.into_iter().all(|(hops, reached)| hops <= 5 && reached == 1_000));
    }

    #[test]
    fn the_rest_stays_connected_when_half_are_killed_at_once() {
        let mut graph = graph(1_000);
        let dead: Vec<_> = graph.keys().copied().step_by(2).collect();
        dead.iter().for_each(|id| drop(graph.remove(id)));
        let best = graph.keys().take(20).map(|id| reach(&graph, *id).1).max();
        assert!(best >= Some(498), "{best:?}");
    }

    #[test]
    fn both_ends_agree_on_who_is_near() {
        let ids = ids(40);
        let overlays: BTreeMap<_, _> = ids
            .iter()
            .map(|id| {
                let mut overlay = Overlay::new(*id, GossipTuning::DEFAULT);
                ids.iter().for_each(|other| overlay.add(*other));
                (*id, overlay)
            })
            .collect();
        for (id, overlay) in &overlays {
            let near: Vec<_> = ids.iter().filter(|other| overlay.is_near(other)).collect();
            assert_eq!(near.len(), 2);
            assert!(near.into_iter().all(|other| overlays.get(other).is_some_and(|other| other.is_near(id))));
        }
    }

    #[test]
    fn random_choices_are_kept_while_they_are_alive() {
        let ids = ids(50);
        let mut overlay = Overlay::new(NodeId::MIN, GossipTuning::DEFAULT);
        ids.iter().for_each(|id| overlay.add(*id));
        let before = overlay.targets(0, &mut rng(1));
        assert_eq!(before.len(), 5);
        assert_eq!(overlay.targets(0, &mut rng(2)), before);
        let gone = before.iter().next_back().copied();
        gone.iter().for_each(|id| overlay.remove(id));
        let after = overlay.targets(0, &mut rng(3));
        assert_eq!(after.len(), 5);
        assert_eq!(after.intersection(&before).count(), 4);
    }

    #[test]
    fn random_choices_are_drawn_again_when_the_cluster_has_doubled() {
        let ids = ids(512);
        let mut targeted: BTreeMap<NodeId, usize> = BTreeMap::new();
        for seed in 0..300 {
            let mut overlay = Overlay::new(NodeId::MIN, GossipTuning::DEFAULT);
            let mut rng = rng(seed);
            // It learns of the others one by one, all in the same order.
            for id in &ids {
                overlay.add(*id);
                overlay.targets(0, &mut rng);
            }
            let redraw_ms = overlay.poll_timeout().unwrap_or_default();
            assert!(redraw_ms > 0, "there are more than twice as many");
            overlay.targets(redraw_ms, &mut rng);
            assert_eq!(overlay.poll_timeout(), None);
            overlay.random.iter().for_each(|id| *targeted.entry(*id).or_default() += 1);
        }
        // 900 targets among 512 members. Without drawing again, they would all be among the first five.
        let most = targeted.values().copied().max();
        assert!(most <= Some(12), "{most:?}");
    }

    #[test]
    fn a_member_that_declines_is_replaced_for_a_while() {
        let ids = ids(50);
        let mut overlay = Overlay::new(NodeId::MIN, GossipTuning::DEFAULT);
        ids.iter().for_each(|id| overlay.add(*id));
        let (none, mut rng) = (BTreeSet::new(), rng(1));
        let before = overlay.targets(0, &mut rng);
        let (random, successors) = (overlay.random.clone(), overlay.successors());
        for id in &before {
            overlay.declined(1_000, *id);
            overlay.failed(1_000, *id, &mut rng);
        }
        assert!(overlay.take_changed());
        overlay.dials(1_000, &none, &mut rng);
        let after = overlay.targets(0, &mut rng);
        assert!(after.len() == 5 && after.is_superset(&successors) && after.is_disjoint(&random));
        assert_eq!(overlay.declined.len(), 3);
        overlay.dials(1_000 + DECLINED_MS, &none, &mut rng);
        assert!(overlay.declined.is_empty());
    }

    #[test]
    fn predecessors_are_those_who_have_this_daemon_as_successor() {
        let ids = ids(40);
        let overlays: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut overlay = Overlay::new(*id, GossipTuning::DEFAULT);
                ids.iter().for_each(|other| overlay.add(*other));
                overlay
            })
            .collect();
        for overlay in &overlays {
            let before: BTreeSet<_> = overlays
                .iter()
                .filter(|other| other.successors().contains(&overlay.me))
                .map(|other| other.me)
                .collect();
            assert_eq!(overlay.predecessors(), before);
        }
    }

    #[test]
    fn a_failed_dial_to_a_linked_member_is_forgotten() {
        let mut overlay = Overlay::new(NodeId::MIN, GossipTuning::DEFAULT);
        overlay.add(NodeId::MAX);
        overlay.linked(&NodeId::MAX);
        overlay.failed(0, NodeId::MAX, &mut rng(1));
        assert_eq!(overlay.dials(5_000, &BTreeSet::from([NodeId::MAX]), &mut rng(1)), []);
        assert_eq!(overlay.poll_timeout(), None, "otherwise its timer would stay due forever");
    }

    #[test]
    fn each_dial_waits_longer_than_the_last() {
        let mut overlay = Overlay::new(NodeId::MIN, GossipTuning::DEFAULT);
        overlay.add(NodeId::MAX);
        let (mut now, none, mut rng) = (0, BTreeSet::new(), rng(1));
        for expected in [1_000_u64, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!(overlay.dials(now, &none, &mut rng), [NodeId::MAX]);
            assert_eq!(overlay.dials(now + 100_000, &none, &mut rng), [], "in progress");
            overlay.failed(now, NodeId::MAX, &mut rng);
            let next = overlay.poll_timeout().unwrap_or_default();
            assert!(
                (expected * 3 / 4..=expected * 5 / 4).contains(&(next - now)),
                "{expected}: {}",
                next - now
            );
            assert_eq!(overlay.dials(next - 1, &none, &mut rng), []);
            now = next;
        }
        overlay.linked(&NodeId::MAX);
        overlay.failed(now, NodeId::MAX, &mut rng);
        assert!(overlay.poll_timeout().unwrap_or_default() - now <= 1_250, "a good link resets the pause");
    }
}
