//! What arrives on links.

use std::sync::Arc;

use pmd_protocol::peer::frame::{Have, Heartbeat, Probe, Probed, Pull, Reason, Sight};
use pmd_protocol::peer::{Frame, NodeId, Stamp, Update};

use super::{Alarm, LinkId, Node, Output, ProbeFor, Purpose};
use crate::facts::Share;
use crate::gossip::reconcile;
use crate::replica::store::{Need, Outcome, OwnClaim, Source};
use crate::replica::view::Rank;

/// Dials for helpers and for own cases together; more only if somebody asks without end.
const MAX_PROBES: usize = 128;

impl<S: Share> Node<S> {
    pub(super) fn take_frame(&mut self, link: LinkId, frame: Frame) {
        if !self.links.contains_key(&link) {
            return;
        }
        match frame {
            // Of the handshake, which is over; and the farewell, which the link's end will tell.
            Frame::Hello(_) | Frame::Proof(_) | Frame::Bye(_) => {}
            // Nothing that is decided here depends on anybody's clock.
            Frame::Clock(_) => {}
            // A command, which whoever owns the node decides on.
            Frame::Depart(_) => {}
            // Of tunnels, which are none of the node's business.
            Frame::Open(_) | Frame::Opened(_) | Frame::DialBack(_) | Frame::Back(_) | Frame::Relay(_) => {}
            Frame::Heartbeat(heartbeat) => self.take_heartbeat(link, &heartbeat),
            Frame::Tally(tally) => {
                if let Some(link) = self.links.get_mut(&link)
                    && link.tallied(&tally)
                {
                    link.tally(false);
                }
            }
            Frame::Membership(membership) => self.take_membership(link, &membership.packet),
            Frame::Update(update) => self.take_update(link, update),
            Frame::Updates(updates) => {
                updates.updates.into_iter().for_each(|update| self.take_update(link, update));
            }
            Frame::Have(have) => self.take_have(link, &have),
            Frame::Pull(pull) => self.take_pull(link, &pull),
            Frame::Prune(prune) => {
                if let Some(link) = self.links.get_mut(&link) {
                    prune.origins.into_iter().for_each(|origin| link.pruned(origin));
                }
            }
            Frame::Ranges(ranges) => {
                let answers = reconcile::answer(&self.registry.live_origins(), &ranges);
                if let Some(link) = self.links.get_mut(&link) {
                    answers.into_iter().for_each(|answer| link.send(answer));
                }
            }
            Frame::Lost(lost) => self.recall(link, &lost.members),
            Frame::Probe(probe) => self.take_probe(link, probe),
            Frame::Probed(probed) => {
                let observer = self.links.get(&link).map(|link| link.peer.id);
                if let Some(verdict) =
                    observer.and_then(|observer| self.evidence.seen(probed.token, observer, probed.sight))
                {
                    self.judge(verdict);
                }
            }
        }
    }

    /// Begins a comparison with the peer of a link.
    pub(super) fn compare(&mut self, link: LinkId) {
        let opening = reconcile::open(&self.registry.live_origins());
        if let Some(link) = self.links.get_mut(&link) {
            link.send(opening);
        }
    }

    pub(super) fn probed(&mut self, token: u64, sight: Sight) {
        match self.probes.remove(&token) {
            Some(ProbeFor::Own(token)) => {
                if let Some(verdict) = self.evidence.seen(token, self.me(), sight) {
                    self.judge(verdict);
                }
            }
            Some(ProbeFor::Helper(link, token)) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.send(Frame::Probed(Probed { token, sight }));
                }
            }
            None => {}
        }
    }

    /// Starts to look whether somebody can be reached. Whether it does.
    pub(super) fn probe(&mut self, target: &NodeId, wanted_by: ProbeFor) -> bool {
        let Some((peer, _)) = self.swim.member(target) else { return false };
        if self.probes.len() >= MAX_PROBES {
            return false;
        }
        let token = self.next_probe;
        self.next_probe += 1;
        self.probes.insert(token, wanted_by);
        self.outputs.push_back(Output::Dial { peer: peer.clone(), purpose: Purpose::Probe(token) });
        true
    }

    fn take_heartbeat(&mut self, id: LinkId, heartbeat: &Heartbeat) {
        let own = self.registry.summary();
        let Some(peer) = self.links.get(&id).map(|link| link.peer.id) else { return };
        let pace_ms = self.pace(&peer);
        let Some(link) = self.links.get_mut(&id) else { return };
        let nearer = link.heard(self.now.mono_ms, heartbeat);
        let rtt_us = link.rtt_us;
        link.beat_along(self.now.mono_ms, pace_ms);
        link.unequal = if link.agrees(&own) { 0 } else { link.unequal + 1 };
        // Once is usual while news are on their way.
        let differs = link.unequal >= 2;
        if differs {
            link.unequal = 0;
        }
        self.health.better();
        if nearer && let Some((_, liveness)) = self.swim.member(&peer) {
            self.registry.rank(&peer, Rank { liveness, rtt_us });
        }
        if differs {
            // Either the registries differ or the members do.
            self.compare(id);
            self.tell_all(id);
        }
    }

    fn take_update(&mut self, id: LinkId, update: Update) {
        let (origin, stamp, whole) = (update.origin, update.stamp, update.last);
        let applied = match self.registry.apply(Source(id.0), update, self.now.mono_ms) {
            Ok((applied, patch)) => {
                self.publish(patch);
                applied
            }
            Err(_) => {
                let peer = self.links.get(&id).map(|link| link.peer.id);
                self.outputs.extend(peer.map(|peer| Output::Alarm(Alarm::Violation(peer))));
                self.close(id, Reason::Violation);
                return;
            }
        };
        if applied.fork {
            self.outputs.push_back(Output::Alarm(Alarm::Forked(origin)));
        }
        let have = self.registry.store().stamp(&origin);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.peer_has(self.registry.store().shared_stamp(&origin, stamp));
        match applied.outcome {
            Outcome::Known => match have.filter(|have| *have > stamp) {
                // The peer is behind, and may not know it.
                Some(newer) => link.offer(self.now.mono_ms, origin, newer, true),
                // It came another way first.
                None if whole && !self.parents.is(&origin, id) => link.prune(origin),
                None => {}
            },
            Outcome::Staged => {}
            Outcome::Applied { before, now, .. } => {
                self.grafts.arrived(&origin, now);
                // Where the peer was told that it is not, what came was on its way: the present parent stays.
                if link.spare(&origin) || !self.parents.has(&origin) {
                    self.parents.came_first(origin, id);
                }
                if before.is_some_and(|before| before.generation == now.generation) {
                    self.offer(origin);
                } else {
                    self.offer_wanted(origin);
                }
            }
            Outcome::Missing(Need::Newer(have)) => link.pull(origin, have, false),
            Outcome::Missing(Need::Snapshot) => link.pull(origin, None, false),
            Outcome::Own(claim) => self.own_claim(claim, stamp),
        }
    }

    fn own_claim(&mut self, claim: OwnClaim, stamp: Stamp) {
        if claim != OwnClaim::Old {
            self.begin_life(stamp.generation);
        }
    }

    fn take_have(&mut self, id: LinkId, have: &Have) {
        let now_ms = self.now.mono_ms;
        let me = self.me();
        let comparing = !have.complete.is_empty();
        for (origin, theirs) in &have.stamps {
            let own = self.registry.store().stamp(origin);
            let Some(link) = self.links.get_mut(&id) else { return };
            let theirs_shared = self.registry.store().shared_stamp(origin, *theirs);
            link.peer_has(Arc::clone(&theirs_shared));
            match own {
                Some(own) if own > *theirs => {
                    if self.registry.is_live(origin) {
                        link.owe(*origin, Some(theirs_shared));
                    }
                }
                Some(own) if own == *theirs => {}
                _ if *origin == me => self.own_claim(OwnClaim::Ahead, *theirs),
                own if comparing => link.pull(*origin, own, false),
                _ => self.grafts.summary(now_ms, id, *origin, *theirs),
            }
        }
        if !comparing {
            return;
        }
        let listed: std::collections::BTreeSet<_> = have.stamps.iter().map(|(origin, _)| *origin).collect();
        let live = self.registry.live_origins();
        let Some(link) = self.links.get_mut(&id) else { return };
        for (first, last) in have.complete.iter().filter(|(first, last)| first <= last) {
            for (origin, ..) in reconcile::within(&live, *first, *last) {
                if !listed.contains(origin) && self.registry.store().stamp(origin).is_some() {
                    link.owe(*origin, None);
                }
            }
        }
    }

    fn take_pull(&mut self, id: LinkId, pull: &Pull) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for (origin, have) in &pull.wants {
            if pull.graft {
                link.grafted(*origin);
            }
            let have = have.map(|have| self.registry.store().shared_stamp(origin, have));
            link.owe(*origin, have);
        }
    }

    fn take_probe(&mut self, id: LinkId, probe: Probe) {
        let reached =
            self.by_peer.get(&probe.target).and_then(|link| self.links.get(link)).is_some_and(|link| {
                // Heard just now: that is as good as a dial.
                let interval_ms = self.tuning.membership.phi.interval_ms;
                link.peer.generation == probe.generation
                    && self.now.mono_ms.saturating_sub(link.phi.last_ms()) <= interval_ms
            });
        if !reached && self.probe(&probe.target, ProbeFor::Helper(id, probe.token)) {
            return;
        }
        let sight = if reached { Sight::Reached } else { Sight::Silent };
        if let Some(link) = self.links.get_mut(&id) {
            link.send(Frame::Probed(Probed { token: probe.token, sight }));
        }
    }
}
