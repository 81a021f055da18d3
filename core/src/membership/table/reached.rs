//! Members that this daemon has reached itself, and what it keeps of those that it only knows from others.

use std::sync::Arc;

use pmd_protocol::peer::NodeId;

use super::MemberTable;
use crate::facts::{About, Share};
use crate::membership::event::MembershipEvent;
use crate::membership::identity::Identity;
use crate::membership::pace::Pace;
use crate::membership::record::{Record, State};

impl<S: Share> MemberTable<S> {
    /// Notes that this daemon has reached a member itself, so it is not an invention.
    pub fn reach(&mut self, id: NodeId) {
        if id != self.own.identity.id {
            self.reached.insert(id);
        }
    }

    /// Forgets that a daemon was reached whose record has not arrived.
    pub fn unreach(&mut self, id: &NodeId) {
        if self.records.get(id).is_none() {
            self.reached.remove(id);
        }
    }

    /// Whether this daemon has reached a member itself, or is that member.
    #[must_use]
    pub fn is_reached(&self, id: &NodeId) -> bool {
        *id == self.own.identity.id || self.reached.contains(id)
    }

    /// The live members that this daemon has never reached and does not suspect.
    pub fn rumoured(&self) -> impl Iterator<Item = &Identity> {
        let rumoured =
            |record: &&Arc<Record>| record.state == State::Alive && !self.reached.contains(record.about());
        self.records.iter().filter(rumoured).map(|record| &record.identity)
    }

    pub(super) fn may_introduce(&mut self, now_ms: u64, introducer: Option<NodeId>) -> bool {
        let pace = Pace::accepted(&self.tuning);
        introducer.is_some_and(|peer| self.introductions.allow(now_ms, peer, pace))
    }

    /// Makes room for another member, if anybody has to give way to it. `reached` is whether this daemon has reached it.
    pub(super) fn make_room(&mut self, reached: bool) -> bool {
        if self.records.len() < self.tuning.max_members {
            return true;
        }
        if let Some(id) = self.dead.pop_for(reached) {
            self.forget(&id);
            return true;
        }
        // Those that exist are reached sooner or later, so whoever is reached comes first.
        let rumoured = self.records.iter().find(|record| !self.reached.contains(record.about()));
        let Some(rumoured) = rumoured.filter(|_| reached).cloned() else { return false };
        self.forget(rumoured.about());
        self.suspicions.remove(rumoured.about());
        self.live -= 1;
        self.events.push_back(MembershipEvent::Down { identity: rumoured.identity.clone() });
        true
    }

    pub(super) fn forget(&mut self, id: &NodeId) {
        self.records.remove(id);
        self.reached.remove(id);
    }
}
