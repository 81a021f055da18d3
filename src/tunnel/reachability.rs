//! Which nodes need no tunnel, for hosts with `tunnel = "when-needed"`.
//!
//! That is decided for each node and its port, because a firewall may open the port of one and not that of another. A node
//! needs none at an address at which the daemon of its host has just proven to be that host, and at which something
//! accepts connections to the node's port. Nodes are checked before anybody asks for them, again from time to time, and
//! whenever a program asks for one: who asks again may have failed to reach it. Until the first check is done, tunnels are
//! used. This is what is known, without I/O; [`direct`](super::direct) connects.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use tokio::sync::Semaphore;

use crate::base::clock::Monotonic;
use crate::directory::Target;

/// Interval between checks of a node that programs on this host ask for.
pub(super) const AGAIN_MS: u64 = 10_000;
/// The same for all others.
const IDLE_MS: u64 = 60_000;
/// Minimum interval between checks of a node, and between proofs of its host at one address.
const AT_MOST_MS: u64 = 1_000;
/// How long programs on this host count as asking for a node.
const IN_USE_MS: u64 = 600_000;
/// Maximum number of nodes that are known here. There are tunnels to all others.
const MAX_NODES: usize = 8_192;
/// Maximum number of nodes that are checked at a time.
const AT_ONCE: usize = 8;

/// A node and its port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Its daemon.
    pub origin: NodeId,
    /// Its name.
    pub name: Box<str>,
    /// Its port.
    pub port: u16,
}

impl Candidate {
    /// The node that is asked for.
    pub(super) fn of(target: &Target, port: u16) -> Candidate {
        Candidate { origin: target.origin, name: target.name.clone(), port }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdict {
    /// The addresses at which it needs no tunnel.
    direct: Vec<IpAddr>,
    /// When it was last checked.
    checked_ms: Option<u64>,
    /// When it was last asked for.
    asked_ms: Option<u64>,
    checking: bool,
}

impl Verdict {
    fn is_due(&self, now_ms: u64, pause_ms: u64) -> bool {
        !self.checking && self.checked_ms.is_none_or(|checked| now_ms.saturating_sub(checked) >= pause_ms)
    }

    fn is_in_use(&self, now_ms: u64) -> bool {
        self.asked_ms.is_some_and(|asked| now_ms.saturating_sub(asked) < IN_USE_MS)
    }
}

/// What is known about the nodes.
#[derive(Debug, Default)]
struct Verdicts(BTreeMap<Candidate, Verdict>);

impl Verdicts {
    /// Knows exactly these nodes from now on.
    fn keep(&mut self, candidates: impl Iterator<Item = Candidate>) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = candidates
            .take(MAX_NODES)
            .map(|candidate| {
                let verdict = before.remove(&candidate).unwrap_or_default();
                (candidate, verdict)
            })
            .collect();
    }

    /// The nodes that are to be checked now.
    fn due(&mut self, now_ms: u64) -> Vec<Candidate> {
        let pause = |verdict: &Verdict| if verdict.is_in_use(now_ms) { AGAIN_MS } else { IDLE_MS };
        let due = self.0.iter_mut().filter(|(_, verdict)| verdict.is_due(now_ms, pause(verdict)));
        due.map(|(candidate, verdict)| {
            verdict.checking = true;
            candidate.clone()
        })
        .collect()
    }

    /// A program asks for a node: the addresses at which it needs no tunnel, and whether it is to be checked now.
    fn ask(&mut self, now_ms: u64, candidate: &Candidate) -> (Vec<IpAddr>, bool) {
        let Some(verdict) = self.0.get_mut(candidate) else { return (Vec::new(), false) };
        verdict.asked_ms = Some(now_ms);
        let due = verdict.is_due(now_ms, AT_MOST_MS);
        verdict.checking |= due;
        (verdict.direct.clone(), due)
    }

    fn checked(&mut self, now_ms: u64, candidate: &Candidate, direct: Vec<IpAddr>) {
        if let Some(verdict) = self.0.get_mut(candidate) {
            let asked_ms = verdict.asked_ms;
            *verdict = Verdict { direct, checked_ms: Some(now_ms), asked_ms, checking: false };
        }
    }

    /// Whether no node of this daemon needs a tunnel, as far as it has any.
    fn is_plain(&self, origin: NodeId) -> bool {
        let first = Candidate { origin, name: "".into(), port: 0 };
        let mut all =
            self.0.range(first..).take_while(|(candidate, _)| candidate.origin == origin).peekable();
        all.peek().is_some() && all.all(|(_, verdict)| !verdict.direct.is_empty())
    }
}

/// When each daemon was last tried at each address, and whether it was there.
type Proofs = HashMap<(NodeId, SocketAddr), (u64, bool)>;

/// Which nodes need no tunnel.
#[derive(Debug)]
pub(super) struct Reachable {
    verdicts: Mutex<Verdicts>,
    proofs: Mutex<Proofs>,
    /// Limits the nodes that are checked at a time.
    pub(super) at_once: Semaphore,
}

impl Default for Reachable {
    fn default() -> Reachable {
        Reachable { verdicts: Mutex::default(), proofs: Mutex::default(), at_once: Semaphore::new(AT_ONCE) }
    }
}

impl Reachable {
    /// Knows exactly these nodes from now on, and returns those that are to be [checked](super::direct::check_all) now.
    pub(super) fn keep(&self, candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
        let now_ms = Monotonic::now().as_ms();
        let mut verdicts = self.verdicts();
        verdicts.keep(candidates);
        verdicts.due(now_ms)
    }

    /// Those of them that are to be checked now.
    pub(super) fn due(&self) -> Vec<Candidate> {
        self.verdicts().due(Monotonic::now().as_ms())
    }

    /// A program asks for a node: the addresses at which it needs no tunnel, and whether it is to be [checked](super::direct::check_all) now.
    pub(super) fn ask(&self, candidate: &Candidate) -> (Vec<IpAddr>, bool) {
        self.verdicts().ask(Monotonic::now().as_ms(), candidate)
    }

    /// Whether no node of this daemon needs a tunnel, as far as it has any.
    pub(super) fn is_plain(&self, origin: NodeId) -> bool {
        self.verdicts().is_plain(origin)
    }

    /// The result of a check: the addresses at which the node needs no tunnel.
    pub(super) fn checked(&self, candidate: &Candidate, direct: Vec<IpAddr>) {
        self.verdicts().checked(Monotonic::now().as_ms(), candidate, direct);
    }

    /// Whether the daemon has proven recently that it is at this address; `None` if it is to be tried.
    pub(super) fn proof(&self, origin: NodeId, address: SocketAddr) -> Option<bool> {
        let now_ms = Monotonic::now().as_ms();
        let mut proofs = self.proofs();
        // A proof counts for as long as the check of a node does.
        proofs.retain(|_, (at_ms, _)| now_ms.saturating_sub(*at_ms) < IDLE_MS);
        let (at_ms, proven) = proofs.get(&(origin, address)).copied()?;
        (proven || now_ms.saturating_sub(at_ms) < AGAIN_MS).then_some(proven)
    }

    /// Whether the daemon has proven just now that it is at this address.
    pub(super) fn tried(&self, origin: NodeId, address: SocketAddr, proven: bool) {
        self.proofs().insert((origin, address), (Monotonic::now().as_ms(), proven));
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u8, name: &str) -> Candidate {
        Candidate { origin: NodeId::new([number; 32]), name: name.into(), port: 5_000 }
    }

    fn address() -> IpAddr {
        "10.0.0.2".parse().expect("an address")
    }

    #[test]
    fn each_node_is_decided_by_itself_and_again_after_a_while() {
        let mut verdicts = Verdicts::default();
        let (open, closed) = (candidate(1, "open"), candidate(1, "closed"));
        assert_eq!(verdicts.ask(0, &open), (Vec::new(), false), "nobody has heard of it");
        verdicts.keep([open.clone(), closed.clone()].into_iter());
        assert_eq!(verdicts.due(0), [closed.clone(), open.clone()]);
        assert!(verdicts.due(0).is_empty(), "they are being checked");
        verdicts.checked(0, &open, vec![address()]);
        verdicts.checked(0, &closed, Vec::new());
        assert_eq!(verdicts.ask(1, &open), (vec![address()], false));
        assert_eq!(verdicts.ask(1, &closed), (Vec::new(), false));
        assert!(!verdicts.is_plain(closed.origin));
        // The other node of the host is at another port, and has ended.
        verdicts.keep([open.clone()].into_iter());
        assert!(verdicts.is_plain(open.origin) && !verdicts.is_plain(candidate(2, "").origin));
        assert!(verdicts.due(AGAIN_MS - 1).is_empty());
        assert_eq!(verdicts.due(AGAIN_MS), std::slice::from_ref(&open));
        // The firewall is closed.
        verdicts.checked(AGAIN_MS, &open, Vec::new());
        assert_eq!(verdicts.ask(AGAIN_MS, &open).0, [] as [IpAddr; 0]);
        let moved = Candidate { port: 5_001, ..open };
        verdicts.keep([moved.clone()].into_iter());
        assert_eq!(verdicts.ask(AGAIN_MS, &moved), (Vec::new(), true), "it is at another port");
    }

    #[test]
    fn who_asks_again_may_have_failed_and_nodes_that_nobody_asks_for_are_checked_less_often() {
        let mut verdicts = Verdicts::default();
        let node = candidate(1, "node");
        verdicts.keep([node.clone()].into_iter());
        verdicts.due(0);
        verdicts.checked(0, &node, vec![address()]);
        assert!(verdicts.due(IDLE_MS - 1).is_empty());
        assert_eq!(verdicts.ask(AT_MOST_MS, &node), (vec![address()], true));
        assert_eq!(verdicts.ask(AT_MOST_MS, &node), (vec![address()], false), "it is being checked");
        verdicts.checked(AT_MOST_MS, &node, Vec::new());
        assert_eq!(verdicts.ask(AT_MOST_MS + 1, &node), (Vec::new(), false));
        assert_eq!(verdicts.due(AT_MOST_MS + AGAIN_MS), [node]);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let mut verdicts = Verdicts::default();
        verdicts.keep((0..2 * MAX_NODES).map(|number| candidate(1, &number.to_string())));
        assert_eq!(verdicts.0.len(), MAX_NODES);
    }
}
