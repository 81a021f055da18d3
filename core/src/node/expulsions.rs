//! Decisions of administrators about members: made here, heard from others, and carried out.

use pmd_protocol::limits::MAX_EXPULSIONS;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Expulsion, Expulsions, Frame, NodeId};

use super::members::MAX_AHEAD_MS;
use super::{Alarm, LinkId, Node, Output, Rule};
use crate::attest::id_of;
use crate::facts::Share;
use crate::membership::expulsions::Heard;

impl<S: Share> Node<S> {
    /// Carries out a decision of this daemon's administrator.
    pub(super) fn decide(&mut self, member: NodeId, host: String, expelled: bool) {
        let by = self.host.host.clone();
        let decision = self.expulsions.decide(&*self.keys, self.now.wall_ms, (member, host), &by, expelled);
        self.hear_decision(None, decision);
    }

    /// Merges decisions that this daemon remembers from an earlier run.
    pub(super) fn remember_decisions(&mut self, decisions: Vec<Expulsion>) {
        for decision in decisions {
            self.hear_decision(None, decision);
        }
    }

    pub(super) fn handle_expulsions(&mut self, link: LinkId, expulsions: Expulsions) {
        for decision in expulsions.list {
            if self.hear_decision(Some(link), decision) == Heard::Forged {
                return self.close_violation(link, Rule::ForgedDecision);
            }
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

    /// Merges a decision that came over `source`. If it is new, carries it out and passes it on.
    fn hear_decision(&mut self, source: Option<LinkId>, decision: Expulsion) -> Heard {
        let latest_ms = self.now.wall_ms.saturating_add(MAX_AHEAD_MS);
        let heard = self.expulsions.merge(&*self.keys, latest_ms, decision.clone());
        match heard {
            Heard::New(forgotten) => {
                // What is forgotten binds nobody.
                forgotten.iter().for_each(|member| self.table.readmit(member));
            }
            Heard::Ignored => {
                self.outputs.push_back(Output::Alarm(Alarm::IgnoredDecision(id_of(&decision.author))));
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
        let frame = Frame::Expulsions(Expulsions { list: vec![decision.clone()] });
        for (_, link) in self.links.iter_mut().filter(|(id, _)| Some(**id) != source) {
            link.send(frame.clone());
        }
        self.outputs.push_back(Output::Decided(decision));
        heard
    }
}
