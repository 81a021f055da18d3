//! Deadlines, and the work that is due.

use std::collections::{BTreeMap, BTreeSet};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Leaving, LinkId, Node, Output, Purpose};
use crate::facts::Share;
use crate::membership::evidence::Trigger;

/// How many links a daemon keeps at most for each member that it wants a link to. On average it has two: one that it
/// dialled, and one that another did. In a cluster of a thousand, chance gives nobody four.
const LINKS_PER_TARGET: usize = 4;
/// The age at which a link that another daemon has dialled may be closed, as a multiple of `surplus_ms`: its dialler
/// closes it after one, unless it needs it.
const EXCESS_AGE: u64 = 6;

impl<S: Share> Node<S> {
    pub(super) fn next_due(&self) -> u64 {
        let links = self.links.values().flat_map(|link| {
            let beats = [link.next_heartbeat_ms, link.phi.deadline()];
            beats.into_iter().chain(link.poll_timeout())
        });
        if self.leaving == Leaving::Left {
            return links.min().unwrap_or(u64::MAX);
        }
        let leave = match self.leaving {
            Leaving::Announced(at) => Some(at),
            Leaving::No | Leaving::Left => None,
        };
        let rest = [
            self.table.poll_timeout(),
            self.evidence.poll_timeout(),
            self.grafts.poll_timeout(),
            self.overlay.poll_timeout(),
            self.replica.next_expiry(),
            (!self.lost.is_empty()).then_some(self.next_seek_ms),
            self.challenges.values().map(|challenge| challenge.due_ms).min(),
            self.next_claim_ms(),
            self.next_held_back_ms(),
            Some(self.next_exchange_ms),
            (!self.links.is_empty()).then_some(self.next_surplus_ms),
            leave,
        ];
        links.chain(rest.into_iter().flatten()).min().unwrap_or(u64::MAX)
    }

    pub(super) fn run_due(&mut self) {
        let now_ms = self.now.mono_ms;
        let lag_ms = self.health.timer(self.next_due(), now_ms);
        if lag_ms > 0 {
            self.woken_ms = now_ms;
            // The silence of peers does not count while this daemon was not running.
            self.links.values_mut().for_each(|link| link.phi.restart_silence(now_ms));
            self.evidence.postpone(lag_ms);
        }
        if self.leaving == Leaving::Left {
            self.run_links();
            return;
        }
        if matches!(self.leaving, Leaving::Announced(at) if at <= now_ms) {
            self.table.leave();
            self.process_membership();
            self.leaving = Leaving::Left;
            self.outputs.push_back(Output::Left);
            return;
        }
        self.table.handle_timeout(now_ms, lag_ms);
        self.process_membership();
        self.run_challenges();
        self.run_held_back();
        if self.next_claim_ms().is_some_and(|due_ms| due_ms <= now_ms)
            && let Some(later) = self.contested.take()
        {
            self.begin_generation(later);
            self.process_membership();
        }
        for outcome in self.evidence.handle_timeout(now_ms) {
            self.conclude(outcome);
        }
        self.run_links();
        for (link, origin) in self.grafts.due(now_ms) {
            // No peer is known to have the update, so ask any of them.
            let link = link.or_else(|| self.links.keys().choose(&mut self.rng).copied());
            let Some(link) = link else { continue };
            let have = self.replica.store().stamp(&origin);
            if let Some(link) = self.links.get_mut(&link) {
                link.pull(origin, have, true);
            }
        }
        self.run_dials();
        self.replica.expire(now_ms);
    }

    fn run_links(&mut self) {
        let now_ms = self.now.mono_ms;
        let due = self.links.values().filter(|link| link.next_heartbeat_ms <= now_ms);
        let paces: BTreeMap<_, _> = due.map(|link| (link.peer.id, self.pace(&link.peer.id))).collect();
        let mut silent = Vec::new();
        for link in self.links.values_mut() {
            if let Some(pace_ms) = paces.get(&link.peer.id).filter(|_| link.next_heartbeat_ms <= now_ms) {
                link.send_heartbeat(now_ms, *pace_ms);
            }
            link.flush_gathered(now_ms);
            if link.phi.deadline() <= now_ms {
                silent.push((link.peer.id, link.peer.generation));
                // The peer is being probed, so the next silence counts from here.
                link.phi.restart_silence(now_ms);
            }
        }
        for about in silent {
            self.investigate(about, Trigger::Silent);
        }
        self.close_mute();
    }

    /// Closes links that have been silent for long although others report their peers alive. One direction is blocked,
    /// which makes the link useless. The peers are dialled again as after any failure.
    fn close_mute(&mut self) {
        let now_ms = self.now.mono_ms;
        let mute_ms = self.tuning.gossip.mute_ms;
        let mute: Vec<(LinkId, NodeId)> = self
            .links
            .iter()
            .filter(|(_, link)| {
                let heard_ms = link.phi.last_ms().max(link.since_ms).max(self.woken_ms);
                now_ms.saturating_sub(heard_ms) >= mute_ms
            })
            .map(|(id, link)| (*id, link.peer.id))
            .collect();
        for (id, peer) in mute {
            self.close(id, Reason::NotNeeded);
            self.overlay.failed(now_ms, peer, &mut self.rng);
        }
    }

    /// Dials the members that this daemon wants links to.
    pub(super) fn dial_targets(&mut self) {
        if self.leaving == Leaving::Left {
            return;
        }
        let now_ms = self.now.mono_ms;
        let linked = self.linked();
        for id in self.overlay.dials(now_ms, &linked, &mut self.rng) {
            match self.table.member(&id) {
                Some((peer, _)) => {
                    self.outputs.push_back(Output::Dial { peer: peer.clone(), purpose: Purpose::Link });
                }
                None => self.overlay.failed(now_ms, id, &mut self.rng),
            }
        }
    }

    fn run_dials(&mut self) {
        let now_ms = self.now.mono_ms;
        if self.overlay.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms) {
            self.dial_targets();
        }
        self.dial_lost();
        self.run_surplus();
        if self.next_exchange_ms <= now_ms {
            let linked = self.linked();
            let period = self.tuning.gossip.exchange_ms;
            self.next_exchange_ms = now_ms.saturating_add(period / 2 + self.rng.random_range(0..=period));
            let outsider = self.overlay.outsider(&linked, &mut self.rng);
            let member = outsider.and_then(|id| self.table.member(&id)).map(|(peer, _)| peer);
            let lost = self.lost.values().map(|(peer, _)| peer).choose(&mut self.rng);
            for peer in member.into_iter().chain(lost) {
                self.outputs.push_back(Output::Dial { peer: peer.clone(), purpose: Purpose::Link });
            }
            self.links.values_mut().for_each(|link| link.trim(&self.replica, &self.table));
        }
    }

    /// Closes surplus links once per `surplus_ms`.
    fn run_surplus(&mut self) {
        let now_ms = self.now.mono_ms;
        if self.next_surplus_ms <= now_ms {
            self.next_surplus_ms = now_ms.saturating_add(self.tuning.gossip.surplus_ms);
            self.close_surplus();
        }
    }

    /// Dials a lost member from time to time, so that all daemons together dial one per `seek_lost_ms`.
    fn dial_lost(&mut self) {
        let now_ms = self.now.mono_ms;
        if self.lost.is_empty() || self.next_seek_ms > now_ms {
            return;
        }
        let keep_ms = self.tuning.membership.remember_down_ms;
        self.lost.retain(|_, (_, since)| now_ms.saturating_sub(*since) < keep_ms);
        let eager_ms = self.tuning.gossip.seek_lost_for_ms;
        // A linked peer is about to become a member again.
        let recent = self.lost.values().filter(|(peer, since)| {
            now_ms.saturating_sub(*since) < eager_ms && !self.by_peer.contains_key(&peer.id)
        });
        let chosen = recent.map(|(peer, _)| peer).choose(&mut self.rng).cloned();
        let cluster = u64::try_from(self.table.len()).unwrap_or(u64::MAX).saturating_add(1);
        let most = self.tuning.gossip.redial_max_ms;
        let period = self.tuning.gossip.seek_lost_ms.saturating_mul(cluster).min(most).max(1);
        self.next_seek_ms = now_ms.saturating_add(period / 2 + self.rng.random_range(0..=period));
        match chosen {
            Some(peer) => self.outputs.push_back(Output::Dial { peer, purpose: Purpose::Link }),
            // Members lost longer ago are dialled along with the exchanges, which are rare.
            None => self.next_seek_ms = now_ms.saturating_add(most),
        }
    }

    /// Closes links that this daemon dialled and no longer needs, and some that others have dialled if it has too many. A
    /// link is needed in place of each target that has none yet: the target may not exist.
    fn close_surplus(&mut self) {
        let now_ms = self.now.mono_ms;
        let targets = self.overlay.targets(self.now.mono_ms, &mut self.rng);
        let missing = targets.iter().filter(|id| !self.by_peer.contains_key(*id)).count();
        let old = self.tuning.gossip.surplus_ms;
        let mut surplus: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                link.initiated
                    && now_ms.saturating_sub(link.since_ms) >= old
                    && !targets.contains(&link.peer.id)
                    && self.table.member(&link.peer.id).is_some()
            })
            .map(|(id, _)| *id)
            .collect();
        // The oldest ones stay.
        surplus.drain(..missing.min(surplus.len()));
        for id in surplus {
            self.close(id, Reason::NotNeeded);
        }
        self.close_excess(&targets);
    }

    /// Closes links that others have dialled, if there are far more than an overlay has: a member could otherwise keep
    /// any number of them. Whoever dialled decides whether it needs its link, so it has time to close it, and the links
    /// that the ring needs are kept. The reason makes its overlay choose another member instead of dialling again.
    fn close_excess(&mut self, targets: &BTreeSet<NodeId>) {
        let now_ms = self.now.mono_ms;
        let gossip = &self.tuning.gossip;
        let most = (gossip.successors + gossip.random).saturating_mul(LINKS_PER_TARGET);
        let excess = self.links.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let old_ms = gossip.surplus_ms.saturating_mul(EXCESS_AGE);
        let predecessors = self.overlay.predecessors();
        let mut closable: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| {
                let peer = &link.peer.id;
                !link.initiated
                    && now_ms.saturating_sub(link.since_ms) >= old_ms
                    && !targets.contains(peer)
                    && !predecessors.contains(peer)
            })
            .map(|(id, link)| {
                (self.table.member(&link.peer.id).is_some(), std::cmp::Reverse(link.since_ms), *id)
            })
            .collect();
        // First those that are no members, then the youngest, so that the others can rely on their links.
        closable.sort_unstable();
        for (.., id) in closable.into_iter().take(excess) {
            self.close(id, Reason::Busy);
        }
    }
}
