//! What must hold after each event, for the daemon that it touched.

use pmd_protocol::peer::NodeId;

use super::network::Scope;
use super::world::World;

/// In worlds of up to so many hosts, all origins are looked at after each event that can have changed all of them. In
/// larger ones every so many events the next few are, by turns; and all of them by [`World::audit`].
const ALL: usize = 40;
const EVERY: u64 = 16;
const FEW: usize = 4;

impl World {
    /// Checks the daemon of a host after an event.
    pub(super) fn check(&mut self, number: usize, scope: Scope) {
        let ids = match scope {
            Scope::Nothing => return,
            Scope::Origins(ids) => ids,
            Scope::Everything if self.hosts.len() > ALL && !self.events.is_multiple_of(EVERY) => return,
            Scope::Everything => {
                let count = self.hosts.len();
                let (first, most) = if count > ALL { (self.turn, FEW) } else { (0, count) };
                self.turn = (first + most) % count.max(1);
                let turns = (first..first + most).map(|turn| turn % count);
                turns.filter_map(|turn| self.hosts.get(turn)).map(|host| host.id).collect()
            }
        };
        let wrong: Vec<_> = ids.iter().filter_map(|id| self.is_wrong(number, id)).collect();
        self.violations.extend(wrong);
    }

    /// Remembers how far a daemon's own entries are, which only its own commands and new lives can change.
    pub(super) fn note(&mut self, number: usize) {
        let Some(daemon) = self.daemon(number) else { return };
        let me = daemon.node.identity().id;
        let own = daemon.node.registry().store().stamp(&me).unwrap_or_default();
        if daemon.noted != own {
            daemon.noted = own;
            let truth = self.truth.entry(me).or_default();
            *truth = own.max(*truth);
        }
    }

    /// Checks all that all daemons know, which takes a while in a large world. What was found wrong, now or earlier.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let pairs = self.nodes().flat_map(|(number, node)| {
            node.registry().store().iter().filter_map(move |(id, _)| self.is_wrong(number, &id))
        });
        self.violations().iter().cloned().chain(pairs).collect()
    }

    fn is_wrong(&self, number: usize, id: &NodeId) -> Option<String> {
        let node = self.node(number)?;
        let content = node.registry().store().content(id).filter(|_| *id != node.identity().id)?;
        let stamp = content.stamp();
        // Nobody knows more of an origin than it has ever done.
        if self.truth.get(id).is_none_or(|truth| stamp > *truth) {
            return Some(format!("{} ms: {number} has {stamp:?} of {id:?}, which never was", self.now_ms()));
        }
        // Visible is only what the membership has alive in the life that wrote it.
        if node.registry().directory().is_visible(id) && node.life_of(id) != Some(stamp.generation) {
            return Some(format!("{} ms: {number} shows {:?} of {id:?}", self.now_ms(), stamp.generation));
        }
        None
    }
}
