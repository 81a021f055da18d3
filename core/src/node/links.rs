//! How links start and end, and the updates offered on them.

use std::collections::BTreeSet;

use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_LOST;
use pmd_protocol::peer::Frame;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::{Lost, Reason};

use super::{Alarm, LinkId, Node, Output, Rule};
use crate::facts::Share;
use crate::gossip::link::{Link, Reach};
use crate::membership::Identity;
use crate::membership::evidence::Trigger;
use crate::replica::store::Source;

/// The number of links up to which news are sent on all of them at first.
const FEW_LINKS: usize = 6;

impl<S: Share> Node<S> {
    /// Offers an origin's current version on every link whose peer does not have it.
    pub(super) fn offer(&mut self, origin: NodeId) {
        if !self.replica.is_live(&origin) {
            return;
        }
        let Some(stamp) = self.replica.store().stamp(&origin) else { return };
        // Where no tree has formed yet, each member would receive an update on every link.
        let few = self.has_few_links();
        // A peer does not need its own entries.
        for link in self.links.values_mut().filter(|link| link.peer.id != origin) {
            let peer = &link.peer.id;
            let pushes = few || self.overlay.is_pushed_to(peer);
            let reach = Reach { pushes, summarises: self.overlay.is_near(peer) };
            link.offer(self.now.mono_ms, origin, stamp, reach);
        }
    }

    pub(super) fn has_few_links(&self) -> bool {
        self.links.len() <= FEW_LINKS
    }

    /// Sends an origin that was missing until now to the peers that asked for it.
    pub(super) fn offer_wanted(&mut self, origin: NodeId) {
        if self.replica.is_live(&origin) {
            self.links.values_mut().for_each(|link| link.offer_wanted(self.now.mono_ms, origin));
        }
    }

    pub(super) fn link_up(&mut self, id: LinkId, (peer, host): (Identity, HostName), initiated: bool) {
        let who = peer.id;
        if who == self.me() {
            // This daemon has dialled itself.
            self.outputs.push_back(Output::Close { link: id, reason: Reason::Duplicate });
            return;
        }
        if self.expulsions.is_expelled(&who) {
            self.outputs.push_back(Output::Close { link: id, reason: Reason::Expelled });
            return;
        }
        let now_ms = self.now.mono_ms;
        let is_future = self.is_from_the_future(&peer);
        if let Some(known) = self.generation_of(&who).filter(|known| is_future || peer.generation < *known) {
            // Whatever the clocks say, this is not the process that the table knows.
            self.table.suspect(now_ms, &who, known, self.tuning.membership.refute_wait_ms);
        }
        if is_future {
            self.outputs.push_back(Output::Close { link: id, reason: Reason::Refused });
            return;
        }
        if let Some(old) = self.by_peer.get(&who).copied() {
            // If both sides dialled at once, both keep the link dialled by the lower id. A peer that dials again has
            // lost the first link; so has a peer whose link has been silent for too long.
            let by_lower = |initiated: bool| initiated == (self.me() < who);
            let keep_old = self.links.get(&old).is_some_and(|link| {
                by_lower(link.initiated) && !by_lower(initiated) && link.phi.is_fresh(now_ms)
            });
            let surplus = if keep_old { id } else { old };
            self.outputs.push_back(Output::Close { link: surplus, reason: Reason::Duplicate });
            if keep_old {
                return;
            }
            self.forget_link(old);
        }
        self.table.reach(who);
        self.overlay.linked(&who);
        self.evidence.drop_case(&who);
        let is_new = self.generation_of(&who) != Some(peer.generation);
        let mut link = Link::new((peer, host), initiated, now_ms, self.phase_ms, &self.tuning);
        link.send_heartbeat(now_ms, self.pace(&who));
        let members: Vec<_> = self.lost.keys().filter(|id| **id != who).take(MAX_LOST).copied().collect();
        if !members.is_empty() {
            link.send(Frame::Lost(Lost { members }));
        }
        self.links.insert(id, link);
        self.by_peer.insert(who, id);
        self.source = Some(id);
        self.send_decisions(id);
        self.send_own_record(id, who);
        self.check_host_name(who);
        if is_new {
            self.send_all_records(id);
        }
    }

    pub(super) fn link_down(&mut self, id: LinkId, reason: Option<Reason>) {
        let Some(link) = self.forget_link(id) else { return };
        for outcome in self.evidence.helper_lost(link.peer.id) {
            self.conclude(outcome);
        }
        self.overlay.failed(self.now.mono_ms, link.peer.id, &mut self.rng);
        if reason == Some(Reason::Busy) {
            self.overlay.declined(self.now.mono_ms, link.peer.id);
        }
        if reason.is_none() {
            self.investigate((link.peer.id, link.peer.generation), Trigger::LinkEnded);
        }
    }

    pub(super) fn link_failed(&mut self, peer: NodeId) {
        self.overlay.failed(self.now.mono_ms, peer, &mut self.rng);
        if let Some(generation) = self.generation_of(&peer) {
            self.investigate((peer, generation), Trigger::DialFailed);
        }
    }

    /// The heartbeat interval on links to a member.
    pub(super) fn pace(&self, id: &NodeId) -> u64 {
        let interval_ms = self.tuning.membership.phi.interval_ms;
        let far = self.tuning.gossip.far_pace.max(1);
        if self.overlay.is_near(id) { interval_ms } else { interval_ms.saturating_mul(far) }
    }

    fn forget_link(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        if self.by_peer.get(&link.peer.id) == Some(&id) {
            self.by_peer.remove(&link.peer.id);
        }
        self.table.unreach(&link.peer.id);
        self.grafts.drop_link(self.now.mono_ms, id);
        self.replica.drop_source(Source(id.0));
        for origin in self.parents.drop_link(id) {
            self.graft_backup(origin);
        }
        Some(link)
    }

    /// Replaces the ended parent link of an origin with a backup.
    fn graft_backup(&mut self, origin: NodeId) {
        let have = self.replica.store().stamp(&origin).filter(|_| self.replica.is_live(&origin));
        let Some(have) = have else { return };
        if let Some((id, link)) = self.links.iter_mut().find(|(_, link)| link.is_backup_for(&origin)) {
            link.pull(origin, Some(have), true);
            self.parents.came_first(origin, *id);
        }
    }

    pub(super) fn close(&mut self, id: LinkId, reason: Reason) {
        if let Some(link) = self.forget_link(id) {
            // If the link is still wanted, it will be dialled again.
            self.overlay.failed(self.now.mono_ms, link.peer.id, &mut self.rng);
            self.outputs.push_back(Output::Close { link: id, reason });
        }
    }

    /// Closes the link to a peer whose entries name another host than its handshake: tunnels and rules go by that name.
    pub(super) fn check_host_name(&mut self, peer: NodeId) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        let (Some(link), Some(claimed)) = (self.links.get(&id), self.replica.view().host(&peer)) else {
            return;
        };
        // Entries of an earlier generation may be of a time when the host had another name.
        let is_current =
            self.replica.store().stamp(&peer).is_some_and(|stamp| stamp.generation == link.peer.generation);
        if is_current && !claimed.as_str().eq_ignore_ascii_case(link.host.as_str()) {
            self.close_violation(id, Rule::OtherHostName);
        }
    }

    /// Closes a link whose peer has sent what no correct daemon sends.
    pub(super) fn close_violation(&mut self, id: LinkId, rule: Rule) {
        let peer = self.links.get(&id).map(|link| link.peer.id);
        self.outputs.extend(peer.map(|peer| Output::Alarm(Alarm::Violation(peer, rule))));
        self.close(id, Reason::Violation);
    }

    pub(super) fn linked(&self) -> BTreeSet<NodeId> {
        self.by_peer.keys().copied().collect()
    }
}
