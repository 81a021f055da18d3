//! What can be looked up: the entries of live origins, by name.
//!
//! One name on several hosts is normal (every RabbitMQ host has a `rabbit`), so a look-up has several answers, and the
//! order is part of the answer: this host first, then members nobody suspects, then the nearest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::{Entry, Key, Kind, NodeId, Value};

use super::content::{Change, Content};
use crate::facts::{Share, Unshared};
use crate::membership::Liveness;

/// What orders the answers to one look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Members that are alive come before those that are suspected.
    pub liveness: Liveness,
    /// The round-trip time in microseconds, where it is known. The nearest come first, the unknown last.
    pub rtt_us: Option<u32>,
}

/// A visible change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// What could be looked up before.
    pub before: Option<Arc<Entry>>,
    /// What can be looked up now.
    pub after: Option<Arc<Entry>>,
}

/// What a copy of the directory has to be told to stay a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// Entries of a visible origin have changed; also how an origin becomes visible.
    Change {
        /// Whose.
        origin: NodeId,
        /// Each entry that differs, once.
        shifts: Vec<Shift>,
    },
    /// An origin is not visible any more, with all it had.
    Hide {
        /// Whose.
        origin: NodeId,
        /// What could be looked up until now.
        entries: Vec<Arc<Entry>>,
    },
}

/// One answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is registered.
    pub origin: NodeId,
    /// The name of that host, where it is known.
    pub host: Option<HostName>,
    /// What is registered.
    pub entry: Arc<Entry>,
}

/// Entries of visible origins. See the module.
#[derive(Debug)]
pub struct Directory<S = Unshared> {
    me: NodeId,
    origins: BTreeMap<NodeId, Shown>,
    /// Holders of a name, in no order that matters to anybody.
    index: Index,
    /// What cannot be read; most have none of it.
    unreadable: BTreeMap<NodeId, BTreeSet<Arc<Key>>>,
    share: S,
}

type Index = BTreeMap<(Kind, Box<[u8]>), BTreeSet<(NodeId, Arc<Key>)>>;

#[derive(Debug, Default)]
struct Shown {
    rank: Rank,
    /// What the daemon says of its host. It is beside the others, since many hosts have no others, and nobody looks it up.
    host: Option<Arc<Entry>>,
    entries: BTreeMap<Arc<Key>, Arc<Entry>>,
}

impl Shown {
    fn host_name(&self) -> Option<&HostName> {
        match self.host.as_deref() {
            Some(Entry::Host(host)) => Some(&host.host),
            _ => None,
        }
    }
}

impl<S: Share> Directory<S> {
    /// A directory in which nothing can be found yet; entries of `me` will come first.
    #[must_use]
    pub fn new(me: NodeId, share: S) -> Self {
        Self { me, origins: BTreeMap::new(), index: BTreeMap::new(), unreadable: BTreeMap::new(), share }
    }

    /// Everybody who has this name, the best first. Hosts are not found by that, but by their origin.
    #[must_use]
    pub fn look_up(&self, kind: Kind, name: &[u8]) -> Vec<Found> {
        let Some(holders) = self.index.get(&(kind, name.into())) else { return Vec::new() };
        let mut found: Vec<_> = holders
            .iter()
            .filter_map(|(origin, key)| {
                let shown = self.origins.get(origin)?;
                let entry = Arc::clone(shown.entries.get(key)?);
                // `None` is less than any time, and has to come last.
                let rtt = shown.rank.rtt_us.map(Reverse);
                let order = (*origin != self.me, shown.rank.liveness, Reverse(rtt), *origin, Arc::clone(key));
                Some((order, Found { origin: *origin, host: shown.host_name().cloned(), entry }))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.into_iter().map(|(_, found)| found).collect()
    }

    /// All visible entries of one origin, by key.
    pub fn of(&self, origin: &NodeId) -> impl Iterator<Item = &Arc<Entry>> {
        let shown = self.origins.get(origin).into_iter();
        shown.flat_map(|shown| shown.host.iter().chain(shown.entries.values()))
    }

    /// Whether an origin is visible.
    #[must_use]
    pub fn is_visible(&self, origin: &NodeId) -> bool {
        self.origins.contains_key(origin)
    }

    /// The name of an origin's host, where it is known.
    #[must_use]
    pub fn host(&self, origin: &NodeId) -> Option<&HostName> {
        self.origins.get(origin)?.host_name()
    }

    /// How many entries of visible origins this version cannot read. They are replicated and left out here.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable.values().map(BTreeSet::len).sum()
    }

    /// Makes an origin visible with what it has. Does nothing if it is visible.
    pub fn show(&mut self, origin: NodeId, rank: Rank, content: &Content) -> Option<Patch> {
        if self.is_visible(&origin) {
            return None;
        }
        self.origins.insert(origin, Shown { rank, ..Shown::default() });
        let puts = content.iter().map(|(key, value)| (Arc::clone(key), Some(value.clone()))).collect();
        Some(Patch::Change { origin, shifts: self.set(origin, puts) })
    }

    /// Applies changes of a visible origin's content. `None` if nothing that can be seen has changed.
    pub fn change(&mut self, origin: NodeId, changes: &[Change]) -> Option<Patch> {
        let changes = changes.iter().map(|change| (Arc::clone(&change.key), change.after.clone())).collect();
        let shifts = self.set(origin, changes);
        (!shifts.is_empty()).then_some(Patch::Change { origin, shifts })
    }

    /// Makes an origin invisible. `None` if it is already.
    pub fn hide(&mut self, origin: NodeId) -> Option<Patch> {
        let shown = self.origins.remove(&origin)?;
        self.unreadable.remove(&origin);
        for key in shown.entries.keys() {
            unlist(&mut self.index, origin, key);
        }
        let entries = shown.host.into_iter().chain(shown.entries.into_values()).collect();
        Some(Patch::Hide { origin, entries })
    }

    /// Says how good an origin's answers are.
    pub fn rank(&mut self, origin: &NodeId, rank: Rank) {
        if let Some(shown) = self.origins.get_mut(origin) {
            shown.rank = rank;
        }
    }

    fn set(&mut self, origin: NodeId, values: Vec<(Arc<Key>, Option<Value>)>) -> Vec<Shift> {
        let Some(shown) = self.origins.get_mut(&origin) else { return Vec::new() };
        let mut shifts = Vec::new();
        for (key, value) in values {
            if let Some(unreadable) = self.unreadable.get_mut(&origin) {
                unreadable.remove(&key);
            }
            let after = match value.map(|value| Entry::read(&key, &value)) {
                Some(Ok(entry)) => Some(entry),
                Some(Err(_)) => {
                    self.unreadable.entry(origin).or_default().insert(Arc::clone(&key));
                    None
                }
                None => None,
            };
            if is_host(&key) {
                let after = after.map(|entry| self.share.share(&origin, entry));
                let before = std::mem::replace(&mut shown.host, after.clone());
                if before != after {
                    shifts.push(Shift { before, after });
                }
                continue;
            }
            let after = after.map(Arc::new);
            let before = match &after {
                Some(entry) => shown.entries.insert(Arc::clone(&key), Arc::clone(entry)),
                None => shown.entries.remove(&key),
            };
            match (&before, &after) {
                (None, Some(_)) => {
                    let holders = self.index.entry((key.kind(), key.name().into())).or_default();
                    holders.insert((origin, key));
                }
                (Some(_), None) => unlist(&mut self.index, origin, &key),
                _ => {}
            }
            if before != after {
                shifts.push(Shift { before, after });
            }
        }
        shifts
    }
}

/// Whether it is the key of what a daemon says of its host.
fn is_host(key: &Key) -> bool {
    key.kind() == Kind::HOST && key.name().is_empty() && key.instance() == 0
}

fn unlist(index: &mut Index, origin: NodeId, key: &Arc<Key>) {
    let name = (key.kind(), key.name().into());
    if let Some(holders) = index.get_mut(&name) {
        holders.remove(&(origin, Arc::clone(key)));
        if holders.is_empty() {
            index.remove(&name);
        }
    }
}
