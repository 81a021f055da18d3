//! Decisions of administrators about members: made here, heard from others, and carried out.

use pmd_protocol::limits::MAX_EXPULSIONS;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Expulsion, Expulsions, Frame, NodeId};

use super::{Alarm, LinkId, MAX_AHEAD_MS, Node, Output, Rule};
use crate::attest::id_of;
use crate::facts::Share;
use crate::membership::expulsions::{Circumstances, Heard};

impl<S: Share> Node<S> {
    /// Carries out a decision of this daemon's administrator.
    pub(super) fn decide(&mut self, member: NodeId, host: String, expelled: bool) {
        let by = self.host.host.clone();
        let decision = self.expulsions.decide(&*self.keys, self.now.wall_ms, (member, host), &by, expelled);
        if let Heard::New(_) = self.hear_decision(None, decision.clone()) {
            self.pass_on(None, vec![decision]);
        }
    }

    /// Merges decisions that this daemon remembers from an earlier run.
    pub(super) fn remember_decisions(&mut self, decisions: Vec<Expulsion>) {
        for decision in decisions {
            self.hear_decision(None, decision);
        }
    }

    pub(super) fn handle_expulsions(&mut self, link: LinkId, expulsions: Expulsions) {
        let Some(peer) = self.links.get(&link).map(|link| link.peer.id) else { return };
        let mut new = Vec::new();
        let mut is_forged = false;
        for decision in expulsions.list {
            match self.hear_decision(Some(peer), decision.clone()) {
                Heard::New(_) => new.push(decision),
                Heard::Forged => {
                    is_forged = true;
                    break;
                }
                _ => {}
            }
        }
        self.pass_on(Some(link), new);
        if is_forged {
            self.close_violation(link, Rule::ForgedDecision);
        }
    }

    /// Sends a new peer all decisions.
    pub(super) fn send_decisions(&mut self, link: LinkId) {
        let all: Vec<_> = self.expulsions.iter().cloned().collect();
        if let Some(link) = self.links.get_mut(&link) {
            for list in all.chunks(MAX_EXPULSIONS) {
                link.send(Frame::Expulsions(Expulsions { list: list.to_vec() }));
            }
        }
    }

    /// Merges a decision that `peer` has sent, or that was made here. If it is new, carries it out.
    fn hear_decision(&mut self, peer: Option<NodeId>, decision: Expulsion) -> Heard {
        let table = &self.table;
        let circumstances = Circumstances {
            keys: &*self.keys,
            from: peer,
            is_member: |id: &NodeId| table.record(id).is_some(),
            now_ms: self.now.mono_ms,
            latest_ms: self.now.wall_ms.saturating_add(MAX_AHEAD_MS),
        };
        let heard = self.expulsions.merge(&circumstances, decision.clone());
        match heard {
            Heard::New(forgotten) => {
                // What is forgotten binds nobody.
                forgotten.iter().for_each(|member| self.table.readmit(member));
            }
            Heard::Ignored => {
                self.outputs.push_back(Output::Alarm(Alarm::IgnoredDecision(id_of(&decision.author))));
                return heard;
            }
            Heard::TooMany(by) => {
                self.outputs.push_back(Output::Alarm(Alarm::TooManyDecisions(by)));
                return heard;
            }
            Heard::Known | Heard::Forged => return heard,
        }
        let member = decision.member;
        if decision.expelled {
            if let Some(link) = self.by_peer.get(&member).copied() {
                self.close(link, Reason::Expelled);
            }
            self.table.expel(self.now.mono_ms, member);
            self.lost.remove(&member);
        } else {
            self.table.readmit(&member);
        }
        self.outputs.push_back(Output::Decided(decision));
        heard
    }

    /// Passes decisions that are new on to all peers but the one on `source`.
    fn pass_on(&mut self, source: Option<LinkId>, list: Vec<Expulsion>) {
        if list.is_empty() {
            return;
        }
        let frame = Frame::Expulsions(Expulsions { list });
        for (_, link) in self.links.iter_mut().filter(|(id, _)| Some(**id) != source) {
            link.send(frame.clone());
        }
    }
}
