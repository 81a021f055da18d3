//! Messages that arrive on links.

use std::collections::BTreeSet;
use std::sync::Arc;

use pmd_protocol::peer::frame::{Have, Heartbeat, Observation, Probe, Probed, Pull};
use pmd_protocol::peer::{Frame, NodeId, Stamp, Update};

use super::{Alarm, ForPeer, HeldBack, LinkId, Node, Output, ProbeFor, Purpose};
use crate::attest::{Signed, hash_content};
use crate::facts::Share;
use crate::gossip::link::Reach;
use crate::gossip::reconcile;
use crate::replica::store::{Effect, Need, OwnClaim, Source};
use crate::replica::view::Rank;

/// The limit on concurrent probes, for peers and for this daemon's own cases. Only a peer that floods requests hits it.
const MAX_PROBES: usize = 128;
/// How long after the timeout of a probe a peer is told that the member is silent: the timeout itself is reported a
/// moment late, and must not be told from other failures by that.
const SILENT_MARGIN_MS: u64 = 20;
/// How long the summaries of a peer may differ before the two registries are compared. Updates in flight usually arrive
/// sooner.
const UNEQUAL_MS: u64 = 500;

impl<S: Share> Node<S> {
    pub(super) fn dispatch(&mut self, link: LinkId, frame: Frame) {
        if !self.links.contains_key(&link) {
            return;
        }
        match frame {
            // The handshake is over, and a `Close` is followed by the end of the link.
            Frame::Preface(_) | Frame::Proof(_) | Frame::Hello(_) | Frame::Close(_) => {}
            // The node makes no decision based on clocks.
            Frame::Clock(_) => {}
            // The caller handles these.
            Frame::Depart(_) | Frame::Rotation(_) | Frame::RevocationList(_) => {}
            // The caller answers these from its own registrations.
            Frame::Ask(_) | Frame::Answer(_) => {}
            // The caller handles tunnels.
            Frame::Open(_) | Frame::Opened(_) | Frame::DialBack(_) | Frame::Back(_) | Frame::Relay(_) => {}
            Frame::Heartbeat(heartbeat) => self.handle_heartbeat(link, &heartbeat),
            Frame::Tally(tally) => {
                if let Some(link) = self.links.get_mut(&link)
                    && link.handle_tally(&tally)
                {
                    link.send_tally(false);
                }
            }
            Frame::Membership(membership) => self.handle_membership(link, &membership.records),
            Frame::Update(update) => self.handle_update(link, update),
            Frame::Updates(updates) => {
                updates.updates.into_iter().for_each(|update| self.handle_update(link, update));
            }
            Frame::Have(have) => self.handle_have(link, &have),
            Frame::Pull(pull) => self.handle_pull(link, &pull),
            Frame::Prune(prune) => {
                if let Some(link) = self.links.get_mut(&link) {
                    let known =
                        prune.origins.into_iter().filter(|origin| self.table.record(origin).is_some());
                    known.for_each(|origin| link.make_lazy(origin));
                }
            }
            Frame::Ranges(ranges) => {
                let answers = reconcile::answer(&self.replica.live_origins(), &ranges);
                if let Some(link) = self.links.get_mut(&link) {
                    answers.into_iter().for_each(|answer| link.send(answer));
                }
            }
            Frame::Lost(lost) => self.challenge(link, &lost.members),
            Frame::Expulsions(expulsions) => self.handle_expulsions(link, expulsions),
            Frame::Probe(probe) => self.handle_probe(link, probe),
            Frame::Probed(probed) => {
                if let Some(observer) = self.links.get(&link).map(|link| link.peer.id) {
                    self.observed(probed.token, observer, probed.observation);
                }
            }
        }
    }

    /// Starts comparing the registry with that of a peer.
    fn compare(&mut self, link: LinkId) {
        let opening = reconcile::open(&self.replica.live_origins());
        if let Some(link) = self.links.get_mut(&link) {
            link.send(opening);
        }
    }

    pub(super) fn probed(&mut self, token: u64, observation: Observation) {
        if observation == Observation::Reached {
            self.health.better(self.now.mono_ms);
        }
        let Some((target, wanted_by)) = self.probes.remove(&token) else { return };
        if observation == Observation::Reached && self.table.record(&target).is_some() {
            self.table.reach(target);
        }
        match wanted_by {
            ProbeFor::Own(token) => self.observed(token, self.me(), observation),
            ProbeFor::Helper(request) => {
                // A daemon that is slow itself does not know whose fault a missing answer is.
                let is_silent = observation == Observation::Silent;
                let doubtful = is_silent && self.health.score() > 0;
                let observation = if doubtful { Observation::Unknown } else { observation };
                if is_silent && self.now.mono_ms < request.silent_ms {
                    self.held_back.push(HeldBack { request, observation });
                } else {
                    self.answer_probe(request, observation);
                }
            }
        }
    }

    fn answer_probe(&mut self, request: ForPeer, observation: Observation) {
        if let Some(link) = self.links.get_mut(&request.link) {
            link.send(Frame::Probed(Probed { token: request.token, observation }));
        }
    }

    /// Gives the answers that were held back until now.
    pub(super) fn run_held_back(&mut self) {
        let now_ms = self.now.mono_ms;
        for HeldBack { request, observation } in
            self.held_back.extract_if(.., |held| held.request.silent_ms <= now_ms).collect::<Vec<_>>()
        {
            self.answer_probe(request, observation);
        }
    }

    /// When the next answer that is held back is due.
    pub(super) fn next_held_back_ms(&self) -> Option<u64> {
        self.held_back.iter().map(|held| held.request.silent_ms).min()
    }

    pub(super) fn observed(&mut self, token: u64, observer: NodeId, observation: Observation) {
        if let Some(outcome) = self.evidence.observed(token, observer, observation) {
            self.conclude(outcome);
        }
    }

    /// Dials a member to find out whether it can be reached. Returns whether a dial was started.
    pub(super) fn probe(&mut self, target: &NodeId, mut wanted_by: ProbeFor) -> bool {
        let Some((peer, _)) = self.table.member(target) else { return false };
        if self.probes.len() + self.held_back.len() >= MAX_PROBES {
            return false;
        }
        let token = self.next_probe;
        self.next_probe += 1;
        let timeout_ms = self.health.stretch(self.tuning.membership.probe_rtt_ms);
        let discreet = match &mut wanted_by {
            ProbeFor::Own(_) => false,
            ProbeFor::Helper(request) => {
                request.silent_ms = self.now.mono_ms.saturating_add(timeout_ms + SILENT_MARGIN_MS);
                true
            }
        };
        self.probes.insert(token, (*target, wanted_by));
        let purpose = Purpose::Probe { token, timeout_ms, discreet };
        self.outputs.push_back(Output::Dial { peer: peer.clone(), purpose });
        true
    }

    fn handle_heartbeat(&mut self, id: LinkId, heartbeat: &Heartbeat) {
        let own = self.replica.summary();
        let Some(peer) = self.links.get(&id).map(|link| link.peer.id) else { return };
        let pace_ms = self.pace(&peer);
        let Some(link) = self.links.get_mut(&id) else { return };
        let (trip_ms, rtt_changed) = link.handle_heartbeat(self.now.mono_ms, heartbeat);
        let rtt_us = link.rtt_us;
        link.answer_heartbeat(self.now.mono_ms, pace_ms);
        // A difference is normal while updates are in flight.
        let now_ms = self.now.mono_ms;
        let since_ms = if link.agrees(&own) { None } else { link.unequal_ms.or(Some(now_ms)) };
        let differs = since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= UNEQUAL_MS);
        link.unequal_ms = since_ms.filter(|_| !differs);
        if trip_ms.is_some_and(|trip_ms| trip_ms <= self.tuning.membership.probe_rtt_ms) {
            self.health.better(self.now.mono_ms);
        }
        if rtt_changed && let Some((_, liveness)) = self.table.member(&peer) {
            self.replica.rank(&peer, Rank { liveness, rtt_us });
        }
        if differs {
            // Either the entries differ or the members do.
            self.compare(id);
            self.send_all_records(id);
        }
    }

    fn handle_update(&mut self, id: LinkId, update: Update) {
        let (origin, stamp, whole) = (update.origin, update.stamp, update.last);
        // Without the record of the origin there is no key to check the update with. The record is on its way, and then this
        // daemon asks for the entries.
        let Some(record) = self.table.record(&origin) else { return };
        let statement = record.statement();
        let keys = &*self.keys;
        let is_genuine = |update: &Update| {
            let signed = Signed::with_content(hash_content(&origin, &stamp), &update.attestation);
            // The same signature may have come with the record.
            record.signed() == signed || signed.is_genuine(keys, &record.key)
        };
        let attestation = update.attestation.clone();
        let applied = match self.replica.apply(Source(id.0), update, self.now.mono_ms, is_genuine) {
            Ok((applied, patch)) => {
                self.publish(patch);
                applied
            }
            Err(error) => return self.close_violation(id, error.into()),
        };
        if matches!(applied.effect, Effect::Applied { .. }) {
            self.check_host_name(origin);
        }
        if matches!(applied.effect, Effect::Applied { .. }) && attestation.other == statement {
            // The latest signature covers the record as well: a newcomer verifies one for both.
            let signed = Signed::with_content(hash_content(&origin, &stamp), &attestation);
            self.table.attest(&origin, signed.member_attestation());
        }
        let is_from_origin = self.links.get(&id).is_some_and(|link| link.peer.id == origin);
        if applied.fork || (applied.doubt && is_from_origin) {
            self.outputs.push_back(Output::Alarm(Alarm::Forked(origin)));
        }
        let have = self.replica.store().stamp(&origin);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.peer_has(self.replica.store().shared_stamp(&origin, stamp));
        match applied.effect {
            Effect::Known => match have.filter(|have| *have > stamp) {
                // The peer is behind and may not know it.
                Some(newer) => link.offer(self.now.mono_ms, origin, newer, Reach::FULL),
                // The update arrived on another link first.
                None if whole && !self.parents.is(&origin, id) => link.prune(origin),
                None => {}
            },
            Effect::Staged => {}
            Effect::Applied { before, now, .. } => {
                self.grafts.arrived(&origin, now);
                // If the peer was told to prune this origin, the update was already in flight, so the current parent
                // stays.
                if link.cancel_prune(&origin) || !self.parents.has(&origin) {
                    self.parents.came_first(origin, id);
                }
                if before.is_some_and(|before| before.generation == now.generation) {
                    self.offer(origin);
                } else {
                    self.offer_wanted(origin);
                }
            }
            Effect::Missing(Need::Newer(have)) => link.pull(origin, have, false),
            Effect::Missing(Need::Snapshot) => link.pull(origin, None, false),
            Effect::Own(claim) => self.answer_claim(claim, stamp),
        }
    }

    /// Reacts to what others hold of this daemon's own entries.
    fn answer_claim(&mut self, claim: OwnClaim, stamp: Stamp) {
        if claim != OwnClaim::Old {
            self.begin_generation(stamp.generation);
        }
    }

    fn handle_have(&mut self, id: LinkId, have: &Have) {
        let now_ms = self.now.mono_ms;
        let me = self.me();
        let comparing = !have.complete.is_empty();
        for (origin, theirs) in &have.stamps {
            if self.table.record(origin).is_none() {
                continue;
            }
            let own = self.replica.store().stamp(origin);
            let Some(link) = self.links.get_mut(&id) else { return };
            let shared = self.replica.store().shared_stamp(origin, *theirs);
            link.peer_has(Arc::clone(&shared));
            match own {
                Some(own) if own > *theirs => {
                    if self.replica.is_live(origin) {
                        link.push(*origin, Some(shared));
                    }
                }
                Some(own) if own == *theirs => {}
                // Only what this daemon itself has signed counts, so the peer has to send it.
                own if *origin == me => link.pull(*origin, own, false),
                own if comparing => link.pull(*origin, own, false),
                _ => self.grafts.summary(now_ms, id, *origin, *theirs),
            }
        }
        if !comparing {
            return;
        }
        let listed: BTreeSet<_> = have.stamps.iter().map(|(origin, _)| *origin).collect();
        let live = self.replica.live_origins();
        let Some(link) = self.links.get_mut(&id) else { return };
        for (first, last) in have.complete.iter().filter(|(first, last)| first <= last) {
            for (origin, ..) in reconcile::within(&live, *first, *last) {
                if !listed.contains(origin) && self.replica.store().stamp(origin).is_some() {
                    link.push(*origin, None);
                }
            }
        }
    }

    fn handle_pull(&mut self, id: LinkId, pull: &Pull) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for (origin, have) in &pull.wants {
            if self.table.record(origin).is_none() {
                continue;
            }
            if pull.graft {
                link.make_eager(*origin);
            }
            let have = have.map(|have| self.replica.store().shared_stamp(origin, have));
            link.push(*origin, have);
        }
    }

    fn handle_probe(&mut self, id: LinkId, probe: Probe) {
        let reached =
            self.by_peer.get(&probe.target).and_then(|link| self.links.get(link)).is_some_and(|link| {
                // A recent heartbeat proves as much as a dial.
                let interval_ms = self.tuning.membership.phi.interval_ms;
                link.peer.generation == probe.generation
                    && self.now.mono_ms.saturating_sub(link.phi.last_ms()) <= interval_ms
            });
        let request = ForPeer { link: id, token: probe.token, silent_ms: self.now.mono_ms };
        if !reached && self.probe(&probe.target, ProbeFor::Helper(request)) {
            return;
        }
        // A member that is dead here has been looked for before.
        let is_dead = || self.table.record(&probe.target).is_some_and(|record| !record.is_live());
        let observation = if reached {
            Observation::Reached
        } else if is_dead() {
            Observation::Silent
        } else {
            Observation::Unknown
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.send(Frame::Probed(Probed { token: probe.token, observation }));
        }
    }
}
