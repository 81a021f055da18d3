//! What must hold after each event, for the daemon that it touched.

use pmd_protocol::peer::NodeId;

use super::world::World;

/// In worlds of up to so many hosts, all origins are looked at after each event that can have changed all of them. In
/// larger ones each such event takes the next few, by turns.
const ALL: usize = 40;
const FEW: usize = 3;

/// What an event can have changed in what a daemon knows of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Nothing,
    Origins(Vec<NodeId>),
    Everything,
}

impl World {
    /// Checks the daemon of a host after an event.
    pub(super) fn check(&mut self, number: usize, scope: Scope) {
        let Some(node) = self.node(number) else { return };
        let me = node.identity().id;
        let own = node.registry().store().stamp(&me).unwrap_or_default();
        let truth = self.truth.entry(me).or_default();
        *truth = own.max(*truth);
        let ids = match scope {
            Scope::Nothing => return,
            Scope::Origins(ids) => ids,
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
