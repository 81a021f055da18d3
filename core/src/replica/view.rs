//! What lookups see: the entries of live origins, by name.
//!
//! One name on several hosts is normal (every RabbitMQ host has a `rabbit`), so a lookup has several results. Results
//! are ordered: this host first, then members that are not suspected, then by round-trip time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::{Entry, Key, Kind, NodeId, Value};

use super::content::{Content, KeyChange};
use crate::facts::{Share, Unshared};
use crate::membership::Liveness;

/// The sort key of lookup results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Members that are alive come before suspects.
    pub liveness: Liveness,
    /// The round-trip time in microseconds, if known. The nearest members come first, unknown times last.
    pub rtt_us: Option<u32>,
}

/// A visible change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    /// The entry before the change.
    pub before: Option<Arc<Entry>>,
    /// The entry after the change.
    pub after: Option<Arc<Entry>>,
}

/// A change of the view, to be applied to copies of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// Entries of an origin have changed, or the origin has become visible.
    Change {
        /// The origin.
        origin: NodeId,
        /// The changed entries, each once.
        changes: Vec<EntryChange>,
    },
    /// An origin is no longer visible.
    Hide {
        /// The origin.
        origin: NodeId,
        /// Its entries.
        entries: Vec<Arc<Entry>>,
    },
}

/// One result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The origin that owns the entry.
    pub origin: NodeId,
    /// The name of its host, if known.
    pub host: Option<HostName>,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// The entries of visible origins, see the module documentation.
#[derive(Debug)]
pub struct View<S = Unshared> {
    me: NodeId,
    origins: BTreeMap<NodeId, Visible>,
    /// The keys with a name, in no particular order.
    index: Index,
    /// Entries that this version cannot read. Most origins have none.
    unreadable: BTreeMap<NodeId, BTreeSet<Arc<Key>>>,
    share: S,
}

type Index = BTreeMap<(Kind, Box<[u8]>), BTreeSet<(NodeId, Arc<Key>)>>;

#[derive(Debug, Default)]
struct Visible {
    rank: Rank,
    /// The daemon's description of its host. It is kept apart because many hosts have no other entry and lookups never
    /// return it.
    host: Option<Arc<Entry>>,
    entries: BTreeMap<Arc<Key>, Arc<Entry>>,
}

impl Visible {
    fn host_name(&self) -> Option<&HostName> {
        match self.host.as_deref() {
            Some(Entry::Host(host)) => Some(&host.host),
            _ => None,
        }
    }
}

impl<S: Share> View<S> {
    /// An empty view, in which entries of `me` will come first.
    #[must_use]
    pub fn new(me: NodeId, share: S) -> Self {
        Self { me, origins: BTreeMap::new(), index: BTreeMap::new(), unreadable: BTreeMap::new(), share }
    }

    /// All entries with this name, best first. Hosts have no names and are only found by their origin.
    #[must_use]
    pub fn look_up(&self, kind: Kind, name: &[u8]) -> Vec<Found> {
        let Some(holders) = self.index.get(&(kind, name.into())) else { return Vec::new() };
        let mut found: Vec<_> = holders
            .iter()
            .filter_map(|(origin, key)| {
                let visible = self.origins.get(origin)?;
                let entry = Arc::clone(visible.entries.get(key)?);
                // `None` is less than any time but must come last.
                let rtt = visible.rank.rtt_us.map(Reverse);
                let order =
                    (*origin != self.me, visible.rank.liveness, Reverse(rtt), *origin, Arc::clone(key));
                Some((order, Found { origin: *origin, host: visible.host_name().cloned(), entry }))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.into_iter().map(|(_, found)| found).collect()
    }

    /// The visible entries of one origin, by key.
    pub fn of(&self, origin: &NodeId) -> impl Iterator<Item = &Arc<Entry>> {
        let visible = self.origins.get(origin).into_iter();
        visible.flat_map(|visible| visible.host.iter().chain(visible.entries.values()))
    }

    /// Whether an origin is visible.
    #[must_use]
    pub fn is_visible(&self, origin: &NodeId) -> bool {
        self.origins.contains_key(origin)
    }

    /// The name of an origin's host, if known.
    #[must_use]
    pub fn host(&self, origin: &NodeId) -> Option<&HostName> {
        self.origins.get(origin)?.host_name()
    }

    /// The number of entries of visible origins that this version cannot read. They are replicated nonetheless.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable.values().map(BTreeSet::len).sum()
    }

    /// Makes an origin visible. Does nothing if it is already visible.
    pub fn show(&mut self, origin: NodeId, rank: Rank, content: &Content) -> Option<Patch> {
        if self.is_visible(&origin) {
            return None;
        }
        self.origins.insert(origin, Visible { rank, ..Visible::default() });
        let puts = content.iter().map(|(key, value)| (Arc::clone(key), Some(value.clone()))).collect();
        Some(Patch::Change { origin, changes: self.set(origin, puts) })
    }

    /// Applies changes of a visible origin's content. `None` if lookups see no change.
    pub fn change(&mut self, origin: NodeId, changes: &[KeyChange]) -> Option<Patch> {
        let values = changes.iter().map(|change| (Arc::clone(&change.key), change.after.clone())).collect();
        let changes = self.set(origin, values);
        (!changes.is_empty()).then_some(Patch::Change { origin, changes })
    }

    /// Hides an origin. `None` if it is already hidden.
    pub fn hide(&mut self, origin: NodeId) -> Option<Patch> {
        let visible = self.origins.remove(&origin)?;
        self.unreadable.remove(&origin);
        for key in visible.entries.keys() {
            unlist(&mut self.index, origin, key);
        }
        let entries = visible.host.into_iter().chain(visible.entries.into_values()).collect();
        Some(Patch::Hide { origin, entries })
    }

    /// Sets the rank of an origin's entries.
    pub fn rank(&mut self, origin: &NodeId, rank: Rank) {
        if let Some(visible) = self.origins.get_mut(origin) {
            visible.rank = rank;
        }
    }

    fn set(&mut self, origin: NodeId, values: Vec<(Arc<Key>, Option<Value>)>) -> Vec<EntryChange> {
        let Some(visible) = self.origins.get_mut(&origin) else { return Vec::new() };
        let mut changes = Vec::new();
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
                let before = std::mem::replace(&mut visible.host, after.clone());
                if before != after {
                    changes.push(EntryChange { before, after });
                }
                continue;
            }
            let after = after.map(Arc::new);
            let before = match &after {
                Some(entry) => visible.entries.insert(Arc::clone(&key), Arc::clone(entry)),
                None => visible.entries.remove(&key),
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
                changes.push(EntryChange { before, after });
            }
        }
        changes
    }
}

/// Whether this is the key of a daemon's description of its host.
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
