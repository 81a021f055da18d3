//! How a connection gets to a member: directly, or it dials back, or through another member.
//!
//! ```text
//!   Direct    here ───────────────▶ there
//!   Reverse   here ◀─────────────── there     asked over the links, for whoever sits behind a NAT
//!   Relay     here ───▶ relay ───▶ there      which splices what it cannot read
//! ```
//!
//! Nothing is dialled here. The caller tries the paths in the order in which [`Routes::paths`] gives them, and says what
//! came of it: what has worked comes first the next time, what has failed comes last for a while.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pmd_protocol::peer::{Entry, NodeId};

use crate::node::Node;

/// How long a path that has failed comes after the others. A network that was repaired is noticed after that.
pub const FORGIVE_MS: u64 = 60_000;

/// Relays that are tried for one member: more would only fail for the same reason.
pub const MAX_RELAYS: usize = 3;

/// Members of whom experience is kept. Beyond it the oldest is forgotten, which costs a try.
const MAX_MEMBERS: usize = 4_096;

/// The key in a host's metadata by which it offers to relay, with the value `true`.
pub const RELAY: &str = "relay";

/// A way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Dial it.
    Direct,
    /// Ask it to dial back.
    Reverse,
    /// Dial this member, and have it pass everything on.
    Relay(NodeId),
}

/// A member that passes on what others send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Who.
    pub id: NodeId,
    /// The round-trip time in microseconds, where it is known.
    pub rtt_us: Option<u32>,
}

/// What has worked and what has not. See the module.
#[derive(Debug, Default)]
pub struct Routes {
    members: BTreeMap<NodeId, Experience>,
}

#[derive(Debug, Default)]
struct Experience {
    at_ms: u64,
    worked: Option<Path>,
    failed: BTreeMap<Path, u64>,
}

impl Routes {
    /// A path has led to a member.
    pub fn worked(&mut self, now_ms: u64, member: NodeId, path: Path) {
        let known = self.of(now_ms, member);
        known.worked = Some(path);
        known.failed.remove(&path);
    }

    /// A path has not.
    pub fn failed(&mut self, now_ms: u64, member: NodeId, path: Path) {
        let known = self.of(now_ms, member);
        known.worked = known.worked.filter(|worked| *worked != path);
        known.failed.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < FORGIVE_MS);
        known.failed.insert(path, now_ms);
    }

    /// A member has gone.
    pub fn forget(&mut self, member: &NodeId) {
        self.members.remove(member);
    }

    /// The ways to a member, the best first: what has worked, then directly, then back, then through the nearest relays;
    /// and after all of them what has failed lately.
    #[must_use]
    pub fn paths(&self, now_ms: u64, member: &NodeId, relays: &[Relay]) -> Vec<Path> {
        let known = self.members.get(member);
        let mut relays: Vec<_> = relays.iter().filter(|relay| relay.id != *member).collect();
        // `None` is less than any time, and has to come last.
        relays.sort_by_key(|relay| (Reverse(relay.rtt_us.map(Reverse)), relay.id));
        let has_failed = |path: &Path| {
            known
                .and_then(|known| known.failed.get(path))
                .is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < FORGIVE_MS)
        };
        let through = relays.into_iter().map(|relay| Path::Relay(relay.id));
        // One that has failed is no reason to try fewer others.
        let (failed, good): (Vec<_>, Vec<_>) = through.partition(has_failed);
        let through = good.into_iter().chain(failed).take(MAX_RELAYS);
        let mut paths: Vec<_> = [Path::Direct, Path::Reverse].into_iter().chain(through).collect();
        let worked = known.and_then(|known| known.worked);
        paths.sort_by_key(|path| (Some(*path) != worked, has_failed(path)));
        paths
    }

    fn of(&mut self, now_ms: u64, member: NodeId) -> &mut Experience {
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&member) {
            let oldest = self.members.iter().min_by_key(|(_, known)| known.at_ms).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.members.remove(&oldest));
        }
        let known = self.members.entry(member).or_default();
        known.at_ms = now_ms;
        known
    }
}

/// The live members that offer to relay, by what they say of their hosts.
#[must_use]
pub fn relays(node: &Node) -> Vec<Relay> {
    let directory = node.registry().directory();
    let offers = |id: &NodeId| {
        directory.of(id).any(|entry| {
            matches!(&**entry, Entry::Host(host) if host.metadata.pairs().get(RELAY).is_some_and(|value| value == "true"))
        })
    };
    let rtt =
        |id: &NodeId| node.links().find(|(_, link)| link.peer.id == *id).and_then(|(_, link)| link.rtt_us);
    let members = node.members().map(|(identity, _)| identity.id);
    members.filter(offers).map(|id| Relay { id, rtt_us: rtt(&id) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn relays(of: &[(u8, Option<u32>)]) -> Vec<Relay> {
        of.iter().map(|(number, rtt_us)| Relay { id: id(*number), rtt_us: *rtt_us }).collect()
    }

    const THERE: NodeId = NodeId::MAX;

    #[test]
    fn the_straight_way_comes_first_and_then_the_nearest_relays() {
        let relays = relays(&[(1, None), (2, Some(900)), (3, Some(100)), (4, Some(500)), (255, Some(1))]);
        let expected =
            [Path::Direct, Path::Reverse, Path::Relay(id(3)), Path::Relay(id(4)), Path::Relay(id(2))];
        assert_eq!(Routes::default().paths(0, &THERE, &relays), expected);
        assert_eq!(Routes::default().paths(0, &THERE, &[]), [Path::Direct, Path::Reverse]);
    }

    #[test]
    fn what_worked_comes_first_and_what_failed_last_until_it_is_forgiven() {
        let relays = relays(&[(1, Some(1)), (2, Some(2))]);
        let mut routes = Routes::default();
        routes.failed(0, THERE, Path::Direct);
        routes.failed(0, THERE, Path::Relay(id(1)));
        let expected = [Path::Reverse, Path::Relay(id(2)), Path::Direct, Path::Relay(id(1))];
        assert_eq!(routes.paths(10, &THERE, &relays), expected);
        routes.worked(20, THERE, Path::Relay(id(2)));
        assert_eq!(routes.paths(30, &THERE, &relays).first(), Some(&Path::Relay(id(2))));
        let forgiven = [Path::Relay(id(2)), Path::Direct, Path::Reverse, Path::Relay(id(1))];
        assert_eq!(routes.paths(FORGIVE_MS, &THERE, &relays), forgiven);
        routes.failed(FORGIVE_MS, THERE, Path::Relay(id(2)));
        assert_eq!(routes.paths(FORGIVE_MS, &THERE, &relays).last(), Some(&Path::Relay(id(2))));
        assert_eq!(
            routes.paths(10, &id(7), &relays).first(),
            Some(&Path::Direct),
            "others are not concerned"
        );
    }

    #[test]
    fn relays_that_fail_make_room_for_others() {
        let relays = relays(&[(1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(4))]);
        let mut routes = Routes::default();
        routes.failed(0, THERE, Path::Relay(id(1)));
        let through: Vec<_> = routes.paths(1, &THERE, &relays).split_off(2);
        assert_eq!(through, [2, 3, 4].map(|number| Path::Relay(id(number))));
    }

    #[test]
    fn experience_is_bounded_and_forgotten() {
        let mut routes = Routes::default();
        for number in 0..=u16::try_from(MAX_MEMBERS).unwrap_or_default() {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&number.to_be_bytes());
            routes.failed(number.into(), NodeId::new(hash), Path::Direct);
        }
        assert_eq!(routes.members.len(), MAX_MEMBERS);
        assert_eq!(
            routes.paths(1, &NodeId::MIN, &[]),
            [Path::Direct, Path::Reverse],
            "the oldest is forgotten"
        );
        routes.failed(9_000, THERE, Path::Direct);
        routes.forget(&THERE);
        assert_eq!(routes.paths(9_000, &THERE, &[]).first(), Some(&Path::Direct));
    }
}
