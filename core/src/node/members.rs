//! Changes of the membership, and the probes that lead to them.

use std::sync::Arc;

use pmd_protocol::limits::MAX_LOST;
use pmd_protocol::peer::frame::{Lost, Membership, Observation, Probe, Reason};
use pmd_protocol::peer::{Entry, Frame, Generation, NodeId, Stamp};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Alarm, Challenge, Leaving, LinkId, MAX_AHEAD_MS, Node, Output, ProbeFor, Rule};
use crate::event::{ClusterChange, Departure};
use crate::facts::{About, Share};
use crate::membership::event::MembershipEvent;
use crate::membership::evidence::{ProbeAction, ProbeOutcome, Trigger};
use crate::membership::judge::{Judge, Merged};
use crate::membership::record::{self, Record, RecordError};
use crate::membership::{Identity, Liveness};
use crate::replica::view::Rank;

/// The number of new generations within [`NEW_GENERATIONS_MS`] after which this daemon concludes that another daemon
/// uses its identity. A clock that was set back causes one.
const MAX_NEW_GENERATIONS: usize = 3;
const NEW_GENERATIONS_MS: u64 = 60_000;
/// The number of observers needed to confirm a suspicion, see [`MembershipTuning`](crate::tuning::MembershipTuning).
const CONFIRMED: usize = 3;
/// The minimum interval between renewals of this daemon because others consider it dead. After a partition, every link
/// between the two sides reports it dead, and one renewal is enough.
const RENEWAL_MS: u64 = 1_000;
/// If a member does not renew itself within this time after a challenge, it may be dead and is probed. It is not
/// challenged again before then.
const CHALLENGE_MS: u64 = 3_000;
/// The minimum interval between alarms about generations that begin later than that.
const FUTURE_ALARM_MS: u64 = 60_000;
/// The minimum interval between alarms about peers that introduce too many members.
const INTRODUCTIONS_ALARM_MS: u64 = 5_000;
/// The number of members that are probed when one that was never reached does not answer. If half of them do not answer
/// either, as when half of the cluster has failed, the number of probes does not grow.
const CHECKED: usize = 2;
/// The number of lost members up to which those that were never reached are remembered for dialling as well.
const MAX_LOST_RUMOURS: usize = 256;
/// The number of lost members that are remembered for dialling. Beyond that, those lost first are forgotten.
const MAX_LOST_MEMBERS: usize = 4_096;

impl<S: Share> Node<S> {
    /// Processes all changes of the member table, including changes caused by the processing itself.
    pub(super) fn process_membership(&mut self) {
        while let Some(event) = self.table.poll_event() {
            match event {
                MembershipEvent::News { id } => self.send_record(id),
                MembershipEvent::Up { identity, liveness, before } => {
                    self.member_up(&identity, liveness, before);
                }
                MembershipEvent::Down { identity } => self.member_down(identity),
                // The generation is the same, so nothing else changes.
                MembershipEvent::Renewed { .. } | MembershipEvent::Refuted => self.health.worse(),
                MembershipEvent::Full => self.outputs.push_back(Output::Alarm(Alarm::TableFull)),
                MembershipEvent::LaterGeneration { identity } => self.begin_generation(identity.generation),
            }
        }
        self.source = None;
        if self.overlay.take_changed() {
            self.dial_targets();
        }
    }

    /// Sends a record on every link whose peer does not have it.
    fn send_record(&mut self, id: NodeId) {
        let Some(standing) = self.table.record(&id).map(|record| record.standing()) else { return };
        for link in self.links.values_mut() {
            link.tell(self.now.mono_ms, id, standing);
        }
    }

    /// Sends a new peer the record of this daemon, and the peer's own record if it is greater than the one in the
    /// handshake.
    pub(super) fn send_own_record(&mut self, link: LinkId, peer: NodeId) {
        let now_ms = self.now.mono_ms;
        for id in [self.me(), peer] {
            let record = self.table.record(&id);
            if let (Some(record), Some(link)) = (record, self.links.get_mut(&link)) {
                link.tell(now_ms, id, record.standing());
            }
        }
    }

    /// Sends a peer the records of all live members, except those it is known to have.
    pub(super) fn send_all_records(&mut self, link: LinkId) {
        let Some(link) = self.links.get_mut(&link) else { return };
        for (identity, _) in self.table.members() {
            if let Some(record) = self.table.record(&identity.id) {
                link.tell(self.now.mono_ms, identity.id, record.standing());
            }
        }
    }

    /// Merges records of another daemon. `introducer` is the peer that has sent them over its link.
    pub(super) fn merge(
        &mut self,
        introducer: Option<NodeId>,
        records: &[u8],
    ) -> Result<Merged, RecordError> {
        let Self { table, keys, replica, links, by_peer, now, .. } = self;
        let judge = Judge {
            is_genuine: |record: &Record| {
                let signed = record.signed();
                // The same signature may have come with the entries.
                let known = replica.store().signed(&record.identity.id);
                known.is_some_and(|known| known == signed) || signed.is_genuine(&**keys, &record.key)
            },
            is_heard: |id: &NodeId| {
                let link = by_peer.get(id).and_then(|link| links.get(link));
                link.is_some_and(|link| link.phi.is_fresh(now.mono_ms))
            },
            introducer,
            latest_ms: now.wall_ms.saturating_add(MAX_AHEAD_MS),
        };
        let merged = table.merge(now.mono_ms, records, &judge)?;
        if let Some(id) = merged.future.first() {
            self.report_future(*id);
        }
        if let Some(peer) = introducer.filter(|_| merged.refused > 0) {
            self.report_introductions(peer);
        }
        Ok(merged)
    }

    /// Whether the generation of a peer begins too far in the future, which is reported.
    pub(super) fn is_from_the_future(&mut self, peer: &Identity) -> bool {
        let is_future = peer.generation.boot_ms > self.now.wall_ms.saturating_add(MAX_AHEAD_MS);
        if is_future {
            self.report_future(peer.id);
        }
        is_future
    }

    fn report_future(&mut self, id: NodeId) {
        if self.next_future_alarm_ms <= self.now.mono_ms {
            self.next_future_alarm_ms = self.now.mono_ms.saturating_add(FUTURE_ALARM_MS);
            self.outputs.push_back(Output::Alarm(Alarm::Future(id)));
        }
    }

    fn report_introductions(&mut self, peer: NodeId) {
        if self.next_introductions_alarm_ms <= self.now.mono_ms {
            self.next_introductions_alarm_ms = self.now.mono_ms.saturating_add(INTRODUCTIONS_ALARM_MS);
            self.outputs.push_back(Output::Alarm(Alarm::Introductions(peer)));
        }
    }

    /// Tells members that are accused of being gone although this daemon hears them. They refute it to everybody.
    pub(super) fn forward_refuted(&mut self, refuted: Vec<Arc<Record>>) {
        for record in refuted {
            let (records, _) = record::encode([&*record], usize::MAX);
            let link = self.by_peer.get(record.about()).and_then(|link| self.links.get_mut(link));
            if let Some(link) = link {
                link.send(Frame::Membership(Membership { records }));
            }
        }
    }

    pub(super) fn handle_membership(&mut self, id: LinkId, records: &[u8]) {
        let Some(peer) = self.links.get(&id).map(|link| link.peer.id) else { return };
        let merged = match self.merge(Some(peer), records) {
            Ok(merged) => merged,
            Err(RecordError::Malformed) => return,
            Err(RecordError::Forged(_)) => return self.close_violation(id, Rule::ForgedStatement),
        };
        self.forward_refuted(merged.refuted);
        let mut dead = Vec::new();
        for record in merged.known {
            let (member, theirs) = (record.identity.id, record.standing());
            let Some(link) = self.links.get_mut(&id) else { return };
            if self.table.record(&member).is_none() {
                continue;
            }
            link.peer_knows(record);
            let Some(own) = self.table.record(&member).map(|record| record.standing()) else { continue };
            if own > theirs && own.is_down() && own.differs_in_liveness(&theirs) {
                // The peer considers a member alive that is dead here. The peer may have missed the failure, or it was
                // on the other side of a partition. If the member is alive, it will refute the record.
                dead.push(member);
            } else if own > theirs {
                link.tell(self.now.mono_ms, member, own);
            }
            if self.grafts.is_missing(&member)
                && let Some(generation) = self.table.record(&member).map(|record| record.identity.generation)
            {
                self.grafts.summary(self.now.mono_ms, id, member, Stamp::start(generation));
            }
        }
        if let Some(link) = self.links.get_mut(&id) {
            dead.chunks(MAX_LOST)
                .for_each(|members| link.send(Frame::Lost(Lost { members: members.to_vec() })));
        }
    }

    /// Begins a new generation, because others know a later one, or know operations in it that this daemon does not:
    /// the clock went back between two starts, this process was restored from a snapshot, or another daemon uses its
    /// key.
    pub(super) fn begin_generation(&mut self, later: Generation) {
        let own = self.identity().generation;
        if later < own || self.leaving != Leaving::No {
            return;
        }
        let now_ms = self.now.mono_ms;
        self.new_generations.retain(|at| now_ms.saturating_sub(*at) < NEW_GENERATIONS_MS);
        if self.new_generations.len() >= MAX_NEW_GENERATIONS {
            self.outputs.push_back(Output::Alarm(Alarm::IdentityTaken));
            self.contested = Some(later);
            return;
        }
        self.contested = None;
        self.new_generations.push_back(now_ms);
        let generation = later.renewed(self.now.wall_ms, self.rng.random());
        self.replica.renew(generation);
        self.table.begin_generation(generation);
        self.offer(self.me());
    }

    /// When this daemon next claims a contested identity, because the other daemon may be gone by then.
    pub(super) fn next_claim_ms(&self) -> Option<u64> {
        let oldest = self.new_generations.front().filter(|_| self.contested.is_some())?;
        Some(oldest.saturating_add(NEW_GENERATIONS_MS))
    }

    /// Tells members that a peer considers them dead. Only they can refute that, so the message is forwarded once.
    /// Members that do not refute it are probed.
    pub(super) fn challenge(&mut self, from: LinkId, lost: &[NodeId]) {
        let now_ms = self.now.mono_ms;
        let mut challenged = Vec::new();
        for id in lost {
            if *id == self.me() {
                if self.next_renewal_ms <= now_ms {
                    self.next_renewal_ms = now_ms.saturating_add(RENEWAL_MS);
                    self.table.renew();
                }
                continue;
            }
            let live = self.table.record(id).filter(|record| record.is_live());
            if let Some(record) = live.filter(|_| !self.challenges.contains_key(id)) {
                let due_ms = now_ms.saturating_add(CHALLENGE_MS);
                self.challenges.insert(*id, Challenge { standing: record.standing(), due_ms });
                challenged.push(*id);
            }
        }
        if challenged.is_empty() {
            return;
        }
        for (_, link) in self.links.iter_mut().filter(|(id, _)| **id != from) {
            link.send(Frame::Lost(Lost { members: challenged.clone() }));
        }
    }

    /// Probes members that have not answered a challenge.
    pub(super) fn run_challenges(&mut self) {
        let now_ms = self.now.mono_ms;
        let due: Vec<_> = self
            .challenges
            .iter()
            .filter(|(_, challenge)| challenge.due_ms <= now_ms)
            .map(|(id, challenge)| (*id, challenge.standing))
            .collect();
        for (id, standing) in due {
            self.challenges.remove(&id);
            let same = self.table.record(&id).filter(|record| record.standing() == standing);
            if let Some(generation) = same.map(|record| record.identity.generation) {
                self.investigate((id, generation), Trigger::Silent);
            }
        }
    }

    /// Probes a member, directly and through helpers.
    pub(super) fn investigate(&mut self, about: (NodeId, Generation), trigger: Trigger) {
        let (target, generation) = about;
        let is_live = self.generation_of(&target) == Some(generation);
        if !is_live || self.leaving != Leaving::No || !self.health.may_suspect() {
            return;
        }
        let peers = self.by_peer.keys().filter(|peer| **peer != target).copied();
        let helpers = peers.sample(&mut self.rng, self.tuning.membership.helpers);
        let health = &self.health;
        let actions = self.evidence.open(self.now.mono_ms, about, trigger, &helpers, health);
        for action in actions {
            match action {
                ProbeAction::Dial { token, target } => {
                    if !self.probe(&target, ProbeFor::Own(token)) {
                        self.observed(token, self.me(), Observation::Unknown);
                    }
                }
                ProbeAction::Ask { token, helper, target, generation } => {
                    let link = self.by_peer.get(&helper).and_then(|link| self.links.get_mut(link));
                    if let Some(link) = link {
                        link.send(Frame::Probe(Probe { token, target, generation }));
                    }
                }
            }
        }
    }

    /// Acts on the outcome of a probe.
    pub(super) fn conclude(&mut self, outcome: ProbeOutcome) {
        match outcome {
            ProbeOutcome::Cleared { only_by_others: true, .. } | ProbeOutcome::Unknown => self.health.worse(),
            ProbeOutcome::Cleared { .. } => {}
            ProbeOutcome::Suspect { target, generation, refused, observers, unheard } => {
                if unheard {
                    self.health.worse();
                }
                let usual = self.table.suspicion_ms();
                // A cluster of three has only two observers.
                let confirmed = observers >= self.table.len().clamp(2, CONFIRMED);
                let wait = if refused {
                    self.tuning.membership.refused_wait_ms
                } else if confirmed {
                    // Helpers that are slow themselves do not confirm anything, so this needs no more time.
                    self.tuning.membership.confirmed_wait_ms.min(usual)
                } else {
                    self.health.stretch(usual)
                };
                if self.table.suspect(self.now.mono_ms, &target, generation, wait) {
                    self.tell_suspect(&target);
                }
                if !self.table.is_reached(&target) {
                    self.check_rumoured();
                }
            }
        }
    }

    /// Probes a few members that this daemon only knows from others, because one of them could not be reached. While most
    /// of them exist, that soon ends; if most were invented, more and more are probed until they are gone.
    fn check_rumoured(&mut self) {
        let linked = |id: &NodeId| self.by_peer.contains_key(id);
        let rumoured = self.table.rumoured().filter(|identity| !linked(&identity.id));
        let some = rumoured.map(|identity| (identity.id, identity.generation)).sample(&mut self.rng, CHECKED);
        for about in some {
            self.investigate(about, Trigger::Silent);
        }
    }

    /// Tells a suspect about the suspicion at once and directly, whether or not it has a link.
    fn tell_suspect(&mut self, suspect: &NodeId) {
        let Some(record) = self.table.record(suspect) else { return };
        let (records, _) = record::encode([record], usize::MAX);
        let (to, frame) = (record.identity.clone(), Frame::Membership(Membership { records }));
        match self.by_peer.get(suspect).and_then(|link| self.links.get_mut(link)) {
            Some(link) => link.send(frame),
            None => self.outputs.push_back(Output::OneShot { to, frame }),
        }
    }

    /// Requests a member's entries from the peer that has just sent news of it. If they do not arrive, other peers that
    /// know the member are asked.
    fn fetch(&mut self, id: NodeId, generation: Generation) {
        let Some(link) = self.source else { return };
        let Some(source) = self.links.get_mut(&link) else { return };
        let have = self.replica.store().stamp(&id);
        source.pull(id, have, false);
        if self.replica.lacks(&id) {
            self.grafts.asked(self.now.mono_ms, link, id, Stamp::start(generation));
        }
    }

    fn member_up(&mut self, identity: &Identity, liveness: Liveness, before: Option<(Generation, Liveness)>) {
        let id = identity.id;
        let rtt_us = self.by_peer.get(&id).and_then(|link| self.links.get(link)?.rtt_us);
        let rank = Rank { liveness, rtt_us };
        let patch = self.replica.member_up(id, identity.generation, rank, self.now.mono_ms);
        let change = match (before, liveness) {
            (Some((generation, was)), _) if generation == identity.generation && was == liveness => None,
            (_, Liveness::Alive) => Some(ClusterChange::NodeUp),
            (_, Liveness::Suspect) => Some(ClusterChange::NodeSuspect),
        };
        // The entries of the previous generation end before the new one begins.
        self.publish(patch);
        if let Some(change) = change {
            self.report_member(id, change);
        }
        self.overlay.add(id);
        self.lost.remove(&id);
        if before.is_none_or(|(generation, _)| generation != identity.generation) {
            self.fetch(id, identity.generation);
        }
    }

    fn member_down(&mut self, identity: Identity) {
        let id = identity.id;
        let is_leaving = |entry: &Arc<Entry>| matches!(&**entry, Entry::Host(host) if host.leaving);
        let left = self.replica.view().of(&id).any(is_leaving);
        let expelled = self.expulsions.is_expelled(&id);
        let departure = expelled.then_some(Departure::Expelled).or_else(|| left.then_some(Departure::Left));
        self.report_member(id, departure.map_or(ClusterChange::NodeDown, ClusterChange::NodeLeft));
        let patch = self.replica.member_down(id, self.now.mono_ms);
        self.publish(patch);
        self.overlay.remove(&id);
        self.evidence.drop_case(&id);
        self.challenges.remove(&id);
        self.grafts.drop_origin(&id);
        self.parents.drop_origin(&id);
        for link in self.links.values_mut() {
            link.drop_origin(&id);
        }
        if departure.is_some() {
            return;
        }
        if self.lost.is_empty() {
            self.next_seek_ms = self.next_seek_ms.max(self.now.mono_ms);
        }
        if self.table.is_reached(&id) || self.lost.len() < MAX_LOST_RUMOURS {
            self.lost.insert(id, (identity, self.now.mono_ms));
        }
        if self.lost.len() > MAX_LOST_MEMBERS
            && let Some(oldest) = self.lost.iter().min_by_key(|(_, (_, since))| *since).map(|(id, _)| *id)
        {
            self.lost.remove(&oldest);
        }
        self.challenge_or_close(id);
    }

    /// A peer was declared dead. If its heartbeats are recent, it is alive and must be told. Otherwise its link is
    /// useless, even if the transport has not noticed, and would prevent a new one.
    fn challenge_or_close(&mut self, peer: NodeId) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        let now_ms = self.now.mono_ms;
        match self.links.get_mut(&id).filter(|link| link.phi.is_fresh(now_ms)) {
            Some(link) => link.send(Frame::Lost(Lost { members: vec![peer] })),
            None => self.close(id, Reason::NotNeeded),
        }
    }

    fn report_member(&mut self, id: NodeId, change: ClusterChange) {
        let host = self.replica.view().host(&id).cloned();
        self.report(id, host, change);
    }
}
