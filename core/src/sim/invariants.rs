//! Invariants that are checked after each event, for the daemon that handled it.

use pmd_protocol::peer::NodeId;

use super::network::Scope;
use super::world::World;

/// Up to this many hosts, all origins are checked after each event that may have changed all of them. In larger worlds,
/// every 16th event checks a few origins in turn, and [`World::audit`] checks all of them.
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

    /// Records the version of a daemon's own entries, which only its commands and new generations can change.
    pub(super) fn note(&mut self, number: usize) {
        let Some(daemon) = self.daemon(number) else { return };
        let me = daemon.node.identity().id;
        let own = daemon.node.replica().store().stamp(&me).unwrap_or_default();
        if daemon.noted != own {
            daemon.noted = own;
            let truth = self.truth.entry(me).or_default();
            *truth = own.max(*truth);
        }
    }

    /// Checks the complete state of all daemons, which takes a while in a large world. Returns all violations,
    /// including earlier ones.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let pairs = self.nodes().flat_map(|(number, node)| {
            node.replica().store().iter().filter_map(move |(id, _)| self.is_wrong(number, &id))
        });
        self.violations().iter().cloned().chain(pairs).collect()
    }

    fn is_wrong(&self, number: usize, id: &NodeId) -> Option<String> {
        let node = self.node(number)?;
        let content = node.replica().store().content(id).filter(|_| *id != node.identity().id)?;
        let stamp = content.stamp();
        // No replica is ahead of its origin.
        if self.truth.get(id).is_none_or(|truth| stamp > *truth) {
            return Some(format!(
                "{} ms: {number} has {stamp:?} of {id:?}, a version that never existed",
                self.now_ms()
            ));
        }
        // Entries are visible only while their origin is live in the generation that wrote them.
        if node.replica().view().is_visible(id) && node.generation_of(id) != Some(stamp.generation) {
            return Some(format!("{} ms: {number} shows {:?} of {id:?}", self.now_ms(), stamp.generation));
        }
        None
    }
}
