//! Which nodes need no tunnel, for hosts with `tunnel = "when-needed"`.
//!
//! That is decided for each node and its port, because a firewall may open the port of one and not that of another. A node
//! needs none at an address at which the daemon of its host has just proven to be that host, and at which the node's port
//! answers as an Erlang node of this name, or as TLS distribution, which says no name before it knows the other side: a
//! NAT or another program may accept connections as well. Nodes are checked before anybody asks for them, again from time to time, and
//! whenever a program asks for one: who asks again may have failed to reach it. Until the first check is done, tunnels are
//! used. This is what is known, without I/O; [`direct`](super::direct) connects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

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
/// The same of one member, so that none crowds out the others.
const MAX_OF_MEMBER: usize = 64;
/// Maximum number of nodes that are checked at a time, in total and of one member, in each [`Lane`].
const AT_ONCE: usize = 8;
const AT_ONCE_OF_MEMBER: usize = 2;
/// Age at which it is no longer believed that a node needs no tunnel.
const STALE_MS: u64 = 2 * AGAIN_MS;

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
    /// Those of them at which it speaks TLS.
    tls: Vec<IpAddr>,
    /// When it was last checked.
    checked_ms: Option<u64>,
    /// When it was last asked for.
    asked_ms: Option<u64>,
    checking: bool,
    /// Whether a check waits in the lane of those that programs ask for, and in the other one.
    waits_asked: bool,
    waits_idle: bool,
}

/// Why a node is checked. Each has limits of its own, so that a program does not wait for the nodes that nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A program asks for it.
    Asked,
    /// It is time to.
    Due,
}

/// Limits the nodes that are checked at a time.
#[derive(Debug)]
struct Lane {
    all: Semaphore,
    of_members: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane { all: Semaphore::new(AT_ONCE), of_members: Mutex::default() }
    }
}

impl Lane {
    fn of_member(&self, origin: NodeId) -> Arc<Semaphore> {
        let mut of_members = self.of_members.lock().unwrap_or_else(PoisonError::into_inner);
        // Those in use are referred to by who waits for them, or has one of their permits.
        of_members.retain(|_, permits| Arc::strong_count(permits) > 1);
        Arc::clone(of_members.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_OF_MEMBER))))
    }

    async fn wait(&self, origin: NodeId) -> Option<Turn<'_>> {
        // A member's own limit comes first, so that its checks that wait do not hold up those of others.
        let of_member = self.of_member(origin).acquire_owned().await.ok()?;
        Some(Turn { _of_member: of_member, _all: self.all.acquire().await.ok()? })
    }
}

/// The right to check a node.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _of_member: OwnedSemaphorePermit,
    _all: SemaphorePermit<'a>,
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
    /// Knows these nodes in addition, and those no longer. The new ones are to be checked.
    fn change(&mut self, new: &[Candidate], gone: &[Candidate]) {
        for candidate in gone {
            self.0.remove(candidate);
        }
        for candidate in new {
            self.0.insert(candidate.clone(), Verdict { waits_idle: true, ..Verdict::default() });
        }
    }

    /// The nodes that are to be checked now.
    fn due(&mut self, now_ms: u64) -> Vec<Candidate> {
        let pause = |verdict: &Verdict| if verdict.is_in_use(now_ms) { AGAIN_MS } else { IDLE_MS };
        let is_due = |verdict: &Verdict| {
            !verdict.waits_idle && !verdict.waits_asked && verdict.is_due(now_ms, pause(verdict))
        };
        let due = self.0.iter_mut().filter(|(_, verdict)| is_due(verdict));
        due.map(|(candidate, verdict)| {
            verdict.waits_idle = true;
            candidate.clone()
        })
        .collect()
    }

    /// It is the turn of a node. Returns whether it still has to be checked.
    fn begin(&mut self, now_ms: u64, candidate: &Candidate, why: Why) -> bool {
        let Some(verdict) = self.0.get_mut(candidate) else { return false };
        let waits = match why {
            Why::Asked => &mut verdict.waits_asked,
            Why::Due => &mut verdict.waits_idle,
        };
        let begins = std::mem::take(waits) && verdict.is_due(now_ms, AT_MOST_MS);
        verdict.checking |= begins;
        begins
    }

    /// A program asks for a node: the addresses at which it needs no tunnel, and whether it is to be checked now.
    fn ask(&mut self, now_ms: u64, candidate: &Candidate) -> (Vec<IpAddr>, bool) {
        let Some(verdict) = self.0.get_mut(candidate) else { return (Vec::new(), false) };
        verdict.asked_ms = Some(now_ms);
        let due = !verdict.waits_asked && verdict.is_due(now_ms, AT_MOST_MS);
        verdict.waits_asked |= due;
        if verdict.checked_ms.is_some_and(|checked| now_ms.saturating_sub(checked) >= STALE_MS) {
            verdict.direct.clear();
        }
        (verdict.direct.clone(), due)
    }

    fn checked(&mut self, now_ms: u64, candidate: &Candidate, direct: Vec<IpAddr>, tls: Vec<IpAddr>) {
        if let Some(verdict) = self.0.get_mut(candidate) {
            *verdict = Verdict { direct, tls, checked_ms: Some(now_ms), checking: false, ..verdict.clone() };
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

/// At most so many of these nodes as are known.
fn bounded(candidates: impl Iterator<Item = Candidate>) -> BTreeSet<Candidate> {
    let mut of_members: HashMap<NodeId, usize> = HashMap::new();
    let bounded = candidates.filter(|candidate| {
        let number = of_members.entry(candidate.origin).or_default();
        *number += 1;
        *number <= MAX_OF_MEMBER
    });
    bounded.take(MAX_NODES).collect()
}

/// When each daemon was last tried at each address, and whether it was there.
type Proofs = HashMap<(NodeId, SocketAddr), (u64, bool)>;

/// Which nodes need no tunnel.
#[derive(Debug, Default)]
pub(super) struct Reachable {
    /// The nodes in `verdicts`. Apart from them because the threads that answer lookups wait for those.
    known: Mutex<BTreeSet<Candidate>>,
    verdicts: Mutex<Verdicts>,
    proofs: Mutex<Proofs>,
    asked: Lane,
    due: Lane,
}

impl Reachable {
    /// Knows exactly these nodes from now on, and returns those that are to be [checked](super::direct::check_all) now.
    pub(super) fn keep(&self, candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
        let candidates = bounded(candidates);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = candidates.difference(&known).cloned().collect();
        let gone: Vec<_> = known.difference(&candidates).cloned().collect();
        *known = candidates;
        if !new.is_empty() || !gone.is_empty() {
            self.verdicts().change(&new, &gone);
        }
        new
    }

    /// Waits until a node may be checked. `None` if it need not be any more.
    pub(super) async fn turn(&self, candidate: &Candidate, why: Why) -> Option<Turn<'_>> {
        let lane = match why {
            Why::Asked => &self.asked,
            Why::Due => &self.due,
        };
        let turn = lane.wait(candidate.origin).await?;
        self.verdicts().begin(Monotonic::now().as_ms(), candidate, why).then_some(turn)
    }

    /// The addresses at which a node was last found to speak TLS.
    pub(super) fn tls(&self, candidate: &Candidate) -> Vec<IpAddr> {
        self.verdicts().0.get(candidate).map(|verdict| verdict.tls.clone()).unwrap_or_default()
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

    /// The result of a check: the addresses at which the node needs no tunnel, and those of them at which it speaks TLS.
    pub(super) fn checked(&self, candidate: &Candidate, direct: Vec<IpAddr>, tls: Vec<IpAddr>) {
        self.verdicts().checked(Monotonic::now().as_ms(), candidate, direct, tls);
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

    impl Verdicts {
        fn check(&mut self, now_ms: u64, candidate: &Candidate, why: Why, direct: &[IpAddr]) {
            assert!(self.begin(now_ms, candidate, why), "{candidate:?}");
            self.checked(now_ms, candidate, direct.to_vec(), Vec::new());
        }
    }

    #[test]
    fn each_node_is_decided_by_itself_and_again_after_a_while() {
        let mut verdicts = Verdicts::default();
        let (open, closed) = (candidate(1, "open"), candidate(1, "closed"));
        assert_eq!(verdicts.ask(0, &open), (Vec::new(), false), "nobody has heard of it");
        verdicts.change(&[open.clone(), closed.clone()], &[]);
        assert!(verdicts.due(0).is_empty(), "they wait for their first check");
        verdicts.check(0, &open, Why::Due, &[address()]);
        verdicts.check(0, &closed, Why::Due, &[]);
        assert_eq!(verdicts.ask(1, &open), (vec![address()], false));
        assert_eq!(verdicts.ask(1, &closed), (Vec::new(), false));
        assert!(!verdicts.is_plain(closed.origin));
        // The other node of the host is at another port, and has ended.
        verdicts.change(&[], std::slice::from_ref(&closed));
        assert!(verdicts.is_plain(open.origin) && !verdicts.is_plain(candidate(2, "").origin));
        assert!(verdicts.due(AGAIN_MS - 1).is_empty());
        assert_eq!(verdicts.due(AGAIN_MS), std::slice::from_ref(&open));
        // The firewall is closed.
        verdicts.check(AGAIN_MS, &open, Why::Due, &[]);
        assert_eq!(verdicts.ask(AGAIN_MS, &open).0, [] as [IpAddr; 0]);
    }

    #[test]
    fn who_asks_again_may_have_failed_and_nodes_that_nobody_asks_for_are_checked_less_often() {
        let mut verdicts = Verdicts::default();
        let node = candidate(1, "node");
        verdicts.change(std::slice::from_ref(&node), &[]);
        verdicts.check(0, &node, Why::Due, &[address()]);
        assert!(verdicts.due(IDLE_MS - 1).is_empty());
        assert_eq!(verdicts.ask(AT_MOST_MS, &node), (vec![address()], true));
        assert_eq!(verdicts.ask(AT_MOST_MS, &node), (vec![address()], false), "it waits for a check");
        verdicts.check(AT_MOST_MS, &node, Why::Asked, &[]);
        assert_eq!(verdicts.ask(AT_MOST_MS + 1, &node), (Vec::new(), false));
        assert_eq!(verdicts.due(AT_MOST_MS + AGAIN_MS), [node]);
    }

    #[test]
    fn who_asks_does_not_wait_for_nodes_that_nobody_asks_for_and_gets_no_old_verdict() {
        let mut verdicts = Verdicts::default();
        let node = candidate(1, "node");
        verdicts.change(std::slice::from_ref(&node), &[]);
        assert!(verdicts.ask(0, &node).1, "its first check may be far behind others");
        assert!(verdicts.begin(0, &node, Why::Asked) && !verdicts.begin(0, &node, Why::Due));
        verdicts.checked(0, &node, vec![address()], Vec::new());
        assert_eq!(verdicts.ask(STALE_MS - 1, &node), (vec![address()], true));
        assert_eq!(verdicts.ask(STALE_MS, &node), (Vec::new(), false));
    }

    #[test]
    fn the_number_of_nodes_is_bounded_in_total_and_for_each_member() {
        let many = (0..2 * MAX_NODES).map(|number| candidate(1, &number.to_string()));
        let others = (2..=u8::MAX).flat_map(|id| (0..2).map(move |name| candidate(id, &name.to_string())));
        let known = bounded(many.chain(others));
        assert_eq!(known.len(), MAX_OF_MEMBER + 2 * 254);
        let id = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            NodeId::new(id)
        };
        let of_many = (0..2 * MAX_NODES).map(|number| Candidate { origin: id(number), ..candidate(1, "x") });
        assert_eq!(bounded(of_many).len(), MAX_NODES);
    }

    #[test]
    fn what_is_known_of_a_node_stays_while_others_come_and_go() {
        let reachable = Reachable::default();
        let (node, other) = (candidate(1, "node"), candidate(2, "other"));
        assert_eq!(reachable.keep([node.clone()].into_iter()), std::slice::from_ref(&node));
        reachable.checked(&node, vec![address()], vec![address()]);
        assert_eq!(reachable.keep([other.clone(), node.clone()].into_iter()), [other]);
        assert_eq!((reachable.ask(&node).0, reachable.tls(&node)), (vec![address()], vec![address()]));
        let moved = Candidate { port: 5_001, ..node.clone() };
        assert_eq!(reachable.keep([moved.clone()].into_iter()), std::slice::from_ref(&moved));
        assert_eq!(reachable.ask(&moved), (Vec::new(), true), "it is at another port");
        assert_eq!(reachable.ask(&node), (Vec::new(), false));
    }

    #[tokio::test]
    async fn one_member_does_not_hold_up_the_checks_of_others() {
        let lane = Lane::default();
        let (greedy, other) = (candidate(1, "").origin, candidate(2, "").origin);
        let _turns = [lane.wait(greedy).await, lane.wait(greedy).await];
        let mut third = Box::pin(lane.wait(greedy));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert!(futures_util::poll!(Box::pin(lane.wait(other))).is_ready());
    }
}
