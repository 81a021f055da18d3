//! What the membership says, and what evidence tells it.

use std::sync::Arc;

use pmd_protocol::limits::MAX_LOST;
use pmd_protocol::peer::frame::{Lost, Membership, Probe, Reason, Sight};
use pmd_protocol::peer::{Entry, Frame, Generation, NodeId, Stamp};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Alarm, Leaving, LinkId, Node, Output, ProbeFor, Recall};
use crate::event::Happening;
use crate::facts::Share;
use crate::membership::evidence::{Clue, Inquiry, Verdict};
use crate::membership::record::pack;
use crate::membership::table;
use crate::membership::{Identity, Liveness};
use crate::replica::view::Rank;

/// New lives within [`RENEWAL_PERIOD_MS`] before this daemon believes that another one has its identity. A clock that
/// went back needs one.
const MAX_RENEWALS: usize = 3;
const RENEWAL_PERIOD_MS: u64 = 60_000;
/// So many observers confirm a suspicion: see [`MembershipTuning`](crate::tuning::MembershipTuning).
const CONFIRMED: usize = 3;
/// Pause between two renewals of this daemon on others' word: every link between two halves brings it, and one is enough.
const RECALL_MS: u64 = 1_000;
/// After this time without an answer to that word, it may be true: somebody has to look. Members are not called again
/// before that.
const DOUBT_MS: u64 = 3_000;
/// Members that are remembered as lost, to be dialled. Beyond it the longest lost go.
const MAX_SOUGHT: usize = 4_096;

impl<S: Share> Node<S> {
    /// Carries out what the membership wants, which may make it want more.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.swim.poll_output() {
            match output {
                table::Output::News { id } => self.spread_news(id),
                table::Output::Up { identity, liveness, before } => {
                    self.member_up(&identity, liveness, before);
                }
                table::Output::Down { identity } => self.member_down(identity),
                // It is still in the same life, so nothing else changes.
                table::Output::Renewed { .. } => self.health.worse(),
                table::Output::LaterLife { identity } => self.begin_life(identity.generation),
            }
        }
        self.teller = None;
        if self.overlay.take_changed() {
            self.dial_targets();
        }
    }

    /// Every link whose peer does not know it will carry it.
    fn spread_news(&mut self, id: NodeId) {
        let Some(standing) = self.swim.record(&id).map(|record| record.standing()) else { return };
        for link in self.links.values_mut() {
            link.tell(self.now.mono_ms, id, standing);
        }
    }

    /// Tells the peer of a link about this daemon, and what is known of the peer itself if that is more than its
    /// greeting has said.
    pub(super) fn introduce(&mut self, link: LinkId, peer: NodeId) {
        let now_ms = self.now.mono_ms;
        for id in [self.me(), peer] {
            let record = self.swim.record(&id);
            if let (Some(record), Some(link)) = (record, self.links.get_mut(&link)) {
                link.tell(now_ms, id, record.standing());
            }
        }
    }

    /// Tells the peer of a link about all live members, except what it is known to know.
    pub(super) fn tell_all(&mut self, link: LinkId) {
        let Some(link) = self.links.get_mut(&link) else { return };
        for (identity, _) in self.swim.members() {
            if let Some(record) = self.swim.record(&identity.id) {
                link.tell(self.now.mono_ms, identity.id, record.standing());
            }
        }
    }

    pub(super) fn take_membership(&mut self, id: LinkId, packet: &[u8]) {
        // Malformed packets are nobody's business but the sender's.
        let Ok(heard) = self.swim.handle_packet(self.now.mono_ms, packet) else { return };
        let mut dead = Vec::new();
        for record in heard {
            let (member, theirs) = (record.identity.id, record.standing());
            let Some(link) = self.links.get_mut(&id) else { return };
            link.peer_knows(record);
            let Some(own) = self.swim.record(&member).map(|record| record.standing()) else { continue };
            if own > theirs && own.is_down() && own.differs_in_death(&theirs) {
                // The peer takes somebody for alive who is dead here: it may have been elsewhere when that happened, or
                // on the other side of a split. Whoever lives can say so.
                dead.push(member);
            } else if own > theirs {
                link.tell(self.now.mono_ms, member, own);
            }
            if self.grafts.is_missing(&member)
                && let Some(generation) = self.swim.record(&member).map(|record| record.identity.generation)
            {
                self.grafts.summary(self.now.mono_ms, id, member, Stamp::start(generation));
            }
        }
        if let Some(link) = self.links.get_mut(&id) {
            dead.chunks(MAX_LOST)
                .for_each(|members| link.send(Frame::Lost(Lost { members: members.to_vec() })));
        }
    }

    /// Others know of a life of this daemon that is later than its own, or of more in it than there was. Its clock went
    /// back between two starts, or it was set back while it ran; or somebody else is using its key.
    pub(super) fn begin_life(&mut self, later: Generation) {
        let own = self.identity().generation;
        if later < own || self.leaving != Leaving::No {
            return;
        }
        let now_ms = self.now.mono_ms;
        self.renewals.retain(|at| now_ms.saturating_sub(*at) < RENEWAL_PERIOD_MS);
        if self.renewals.len() >= MAX_RENEWALS {
            self.outputs.push_back(Output::Alarm(Alarm::IdentityTaken));
            self.contested = Some(later);
            return;
        }
        self.contested = None;
        self.renewals.push_back(now_ms);
        let generation = later.renewed(self.now.wall_ms, self.rng.random());
        self.registry.renew(generation);
        self.swim.begin_life(generation);
        self.offer(self.me());
    }

    /// When a contested identity can be claimed again: the other may have gone by then.
    pub(super) fn next_claim_ms(&self) -> Option<u64> {
        let oldest = self.renewals.front().filter(|_| self.contested.is_some())?;
        Some(oldest.saturating_add(RENEWAL_PERIOD_MS))
    }

    /// The peer of a link takes these for dead. Those who live have to know, for only they can come back; so the word is
    /// passed on, once. Who does not come back is looked into.
    pub(super) fn recall(&mut self, from: LinkId, lost: &[NodeId]) {
        let now_ms = self.now.mono_ms;
        let mut called = Vec::new();
        for id in lost {
            if *id == self.me() {
                if self.next_recall_ms <= now_ms {
                    self.next_recall_ms = now_ms.saturating_add(RECALL_MS);
                    self.swim.renew();
                }
                continue;
            }
            let lives = self.swim.record(id).filter(|record| record.is_live());
            if let Some(record) = lives.filter(|_| !self.recalls.contains_key(id)) {
                let recall = Recall { standing: record.standing(), due_ms: now_ms.saturating_add(DOUBT_MS) };
                self.recalls.insert(*id, recall);
                called.push(*id);
            }
        }
        if called.is_empty() {
            return;
        }
        for (_, link) in self.links.iter_mut().filter(|(id, _)| **id != from) {
            link.send(Frame::Lost(Lost { members: called.clone() }));
        }
    }

    /// Looks into those who have not come back after they were called.
    pub(super) fn run_recalls(&mut self) {
        let now_ms = self.now.mono_ms;
        let due: Vec<_> = self
            .recalls
            .iter()
            .filter(|(_, recall)| recall.due_ms <= now_ms)
            .map(|(id, recall)| (*id, recall.standing))
            .collect();
        for (id, standing) in due {
            self.recalls.remove(&id);
            let same = self.swim.record(&id).filter(|record| record.standing() == standing);
            if let Some(generation) = same.map(|record| record.identity.generation) {
                self.clue((id, generation), Clue::Silent);
            }
        }
    }

    /// Looks into a clue about a member.
    pub(super) fn clue(&mut self, about: (NodeId, Generation), clue: Clue) {
        let (accused, generation) = about;
        let lives = self.swim.member(&accused).is_some_and(|(identity, _)| identity.generation == generation);
        if !lives || self.leaving != Leaving::No || !self.health.may_accuse() {
            return;
        }
        let peers = self.by_peer.keys().filter(|peer| **peer != accused).copied();
        let helpers = peers.sample(&mut self.rng, self.tuning.membership.helpers);
        let health = &self.health;
        let inquiries =
            self.evidence.clue(self.now.mono_ms, about, clue, &helpers, |wait| health.stretch(wait));
        for inquiry in inquiries {
            match inquiry {
                Inquiry::Dial { token, accused } => {
                    if !self.probe(&accused, ProbeFor::Own(token)) {
                        let verdict = self.evidence.seen(token, self.me(), Sight::Silent);
                        verdict.into_iter().for_each(|verdict| self.judge(verdict));
                    }
                }
                Inquiry::Ask { token, helper, accused, generation } => {
                    let link = self.by_peer.get(&helper).and_then(|link| self.links.get_mut(link));
                    if let Some(link) = link {
                        link.send(Frame::Probe(Probe { token, target: accused, generation }));
                    }
                }
            }
        }
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Cleared { only_by_others: true, .. } => self.health.worse(),
            Verdict::Cleared { .. } => {}
            Verdict::Suspect { accused, generation, refused, observers } => {
                let usual = self.swim.suspicion_ms();
                // In a cluster of three there are only two who can look.
                let confirmed = observers >= self.swim.len().clamp(2, CONFIRMED);
                let wait = if refused {
                    self.tuning.membership.refused_wait_ms
                } else if confirmed {
                    self.health.stretch(self.tuning.membership.confirmed_wait_ms.min(usual))
                } else {
                    self.health.stretch(usual)
                };
                if self.swim.suspect(self.now.mono_ms, &accused, generation, wait) {
                    self.tell_accused(&accused);
                }
            }
        }
    }

    /// Tells a suspect at once, on the shortest way, however its links are.
    fn tell_accused(&mut self, accused: &NodeId) {
        let Some(record) = self.swim.record(accused) else { return };
        let (packet, _) = pack([record], usize::MAX);
        let (to, frame) = (record.identity.clone(), Frame::Membership(Membership { packet }));
        match self.by_peer.get(accused).and_then(|link| self.links.get_mut(link)) {
            Some(link) => link.send(frame),
            None => self.outputs.push_back(Output::Packet { to, frame }),
        }
    }

    /// Asks for what a member has registered, whoever has just told of it; and if it does not come, others who do.
    fn fetch(&mut self, id: NodeId, generation: Generation) {
        let Some(teller) = self.teller.and_then(|link| self.links.get_mut(&link)) else { return };
        let have = self.registry.store().stamp(&id);
        teller.pull(id, have, false);
        if self.registry.lacks(&id) {
            self.grafts.asked(self.now.mono_ms, id, Stamp::start(generation));
        }
    }

    fn member_up(&mut self, identity: &Identity, liveness: Liveness, before: Option<(Generation, Liveness)>) {
        let id = identity.id;
        let rtt_us = self.by_peer.get(&id).and_then(|link| self.links.get(link)?.rtt_us);
        let rank = Rank { liveness, rtt_us };
        let patch = self.registry.member_up(id, identity.generation, rank, self.now.mono_ms);
        let what = match (before, liveness) {
            (Some((generation, was)), _) if generation == identity.generation && was == liveness => None,
            (_, Liveness::Alive) => Some(Happening::NodeUp),
            (_, Liveness::Suspect) => Some(Happening::NodeSuspect),
        };
        // A new life ends what the old one had before it begins.
        self.publish(patch);
        self.tell(id, what);
        self.overlay.add(id);
        self.lost.remove(&id);
        if before.is_none_or(|(generation, _)| generation != identity.generation) {
            self.fetch(id, identity.generation);
        }
    }

    fn member_down(&mut self, identity: Identity) {
        let id = identity.id;
        let leaves = |entry: &Arc<Entry>| matches!(&**entry, Entry::Host(host) if host.leaving);
        let left = self.registry.directory().of(&id).any(leaves);
        self.tell(id, Some(if left { Happening::NodeLeft } else { Happening::NodeDown }));
        let patch = self.registry.member_down(id, self.now.mono_ms);
        self.publish(patch);
        self.overlay.remove(&id);
        self.evidence.drop_case(&id);
        self.recalls.remove(&id);
        self.grafts.drop_origin(&id);
        self.parents.drop_origin(&id);
        for link in self.links.values_mut() {
            link.drop_origin(&id);
        }
        if left {
            return;
        }
        if self.lost.is_empty() {
            self.next_seek_ms = self.next_seek_ms.max(self.now.mono_ms);
        }
        self.lost.insert(id, (identity, self.now.mono_ms));
        if self.lost.len() > MAX_SOUGHT
            && let Some(oldest) = self.lost.iter().min_by_key(|(_, (_, since))| *since).map(|(id, _)| *id)
        {
            self.lost.remove(&oldest);
        }
        self.part(id);
    }

    /// A peer is dead for everybody. If it was heard just now it is not, and has to know; else its link is of no use any
    /// more, even if the transport has not noticed, and would be in the way of the next.
    fn part(&mut self, peer: NodeId) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        let now_ms = self.now.mono_ms;
        match self.links.get_mut(&id).filter(|link| link.phi.is_fresh(now_ms)) {
            Some(link) => link.send(Frame::Lost(Lost { members: vec![peer] })),
            None => self.close(id, Reason::NotNeeded),
        }
    }

    fn tell(&mut self, id: NodeId, what: Option<Happening>) {
        let Some(what) = what else { return };
        let host = self.registry.directory().host(&id).cloned();
        self.report(id, host, what);
    }
}
