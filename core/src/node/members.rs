//! What the membership says, and what evidence tells it.

use std::sync::Arc;

use pmd_protocol::peer::frame::{Membership, Probe, Sight};
use pmd_protocol::peer::{Entry, Frame, Generation, NodeId};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Alarm, Leaving, Node, Output, ProbeFor};
use crate::event::Happening;
use crate::membership::Identity;
use crate::membership::evidence::{Clue, Inquiry, Verdict};
use crate::membership::swim;
use crate::registry::directory::{Liveness, Rank};

/// New lives within [`RENEWAL_PERIOD_MS`] before this daemon believes that another one has its identity. A clock that
/// went back needs one.
const MAX_RENEWALS: usize = 3;
const RENEWAL_PERIOD_MS: u64 = 60_000;
/// So many observers confirm a suspicion: see [`MembershipTuning`](crate::tuning::MembershipTuning).
const CONFIRMED: usize = 3;
/// Pause between two rounds of telling members that somebody takes them for dead.
const RECALL_MS: u64 = 1_000;

impl Node {
    /// Carries out what the membership wants, which may make it want more.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.swim.poll_output() {
            match output {
                swim::Output::Send { to, packet } => self.send_membership(to, packet),
                swim::Output::Up { identity, liveness } => self.member_up(&identity, liveness),
                swim::Output::Down { identity } => self.member_down(identity),
                // It is still in the same life, so nothing else changes.
                swim::Output::Renewed { .. } => self.health.worse(),
                swim::Output::LaterLife { identity } => self.begin_life(identity.generation),
            }
        }
        if self.overlay.take_changed() {
            self.dial_targets();
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
            return;
        }
        self.renewals.push_back(now_ms);
        let generation = later.renewed(self.now.wall_ms, self.rng.random());
        self.registry.renew(generation);
        self.swim.begin_life(now_ms, generation);
        self.offer(self.me());
    }

    /// A peer takes these for dead. Those who live have to know, or the peer would have to find each of them.
    pub(super) fn recall(&mut self, lost: &[NodeId]) {
        // Every link between two halves brings such a list, and one is enough.
        if self.next_recall_ms <= self.now.mono_ms {
            self.next_recall_ms = self.now.mono_ms.saturating_add(RECALL_MS);
            self.swim.recall(lost);
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
                self.swim.suspect(self.now.mono_ms, &accused, generation, wait);
            }
        }
    }

    fn send_membership(&mut self, to: Identity, packet: Vec<u8>) {
        let frame = Frame::Membership(Membership { packet });
        match self.by_peer.get(&to.id).and_then(|link| self.links.get_mut(link)) {
            Some(link) => link.send(frame),
            None => self.outputs.push_back(Output::Packet { to, frame }),
        }
    }

    fn member_up(&mut self, identity: &Identity, liveness: Liveness) {
        let id = identity.id;
        let rtt_us = self.by_peer.get(&id).and_then(|link| self.links.get(link)?.rtt_us);
        let rank = Rank { liveness, rtt_us };
        let patch = self.registry.member_up(id, identity.generation, rank, self.now.mono_ms);
        let before = self.seen.insert(id, (identity.generation, liveness));
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
        self.offer(id);
    }

    fn member_down(&mut self, identity: Identity) {
        let id = identity.id;
        let leaves = |entry: &Arc<Entry>| matches!(&**entry, Entry::Host(host) if host.leaving);
        let left = self.registry.directory().of(&id).any(leaves);
        self.tell(id, Some(if left { Happening::NodeLeft } else { Happening::NodeDown }));
        let patch = self.registry.member_down(id, self.now.mono_ms);
        self.publish(patch);
        self.seen.remove(&id);
        self.overlay.remove(&id);
        self.evidence.drop_case(&id);
        if !left {
            if self.lost.is_empty() {
                self.next_seek_ms = self.next_seek_ms.max(self.now.mono_ms);
            }
            self.lost.insert(id, (identity, self.now.mono_ms));
        }
    }

    fn tell(&mut self, id: NodeId, what: Option<Happening>) {
        let Some(what) = what else { return };
        let host = self.registry.directory().host(&id).cloned();
        let event = self.events.add(self.now.wall_ms, id, host, what).clone();
        self.outputs.push_back(Output::Event(event));
    }
}
