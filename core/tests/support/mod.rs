//! Origins that remember every version they had, so that replicas can be checked against them.

#![allow(dead_code, reason = "shared by several test crates, each of which uses only a part")]
#![allow(unreachable_pub, clippy::unwrap_used, reason = "test helper, not a public interface")]

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_core::id::{Generation, NodeId, Stamp};
use pmd_core::replica::content::Content;
use pmd_core::replica::store::{Applied, Effect, Need, Source, Store};
use pmd_core::tuning::ReplicaTuning;
use pmd_protocol::peer::{Key, Kind, Update, Value, Version};
use proptest::collection::vec;
use proptest::prelude::*;

/// An operation or restart of an origin.
#[derive(Clone, Debug)]
pub enum Act {
    Put(u8, u8),
    Delete(u8),
    Restart,
}

pub fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0..6_u8, 0..4_u8).prop_map(|(key, value)| Act::Put(key, value)),
        4 => (0..6_u8).prop_map(Act::Delete),
        1 => Just(Act::Restart),
    ]
}

/// Acts within one generation.
pub fn acts_of_one_generation(length: usize) -> impl Strategy<Value = Vec<Act>> {
    vec(act().prop_filter("one generation", |act| !matches!(act, Act::Restart)), 0..length)
}

pub fn node(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

pub fn generation(number: u64) -> Generation {
    Generation { boot_ms: number, nonce: 0 }
}

pub fn key(number: u8) -> Key {
    Key::new(Kind::SERVICE, format!("service-{number}").as_bytes(), 0).unwrap()
}

pub fn value(number: u8) -> Value {
    Value::new(&vec![number; 1 + usize::from(number) * 40]).unwrap()
}

pub fn tuning(tombstones: usize) -> ReplicaTuning {
    ReplicaTuning { tombstones, ..ReplicaTuning::DEFAULT }
}

/// An origin, with every content it ever had.
pub struct Origin {
    pub store: Store,
    pub history: BTreeMap<Stamp, Arc<Content>>,
    generations: u64,
    tombstones: usize,
}

impl Origin {
    pub fn new(id: NodeId, tombstones: usize) -> Origin {
        let store = Store::new(id, generation(0), tuning(tombstones));
        let mut origin = Origin { store, history: BTreeMap::new(), generations: 1, tombstones };
        origin.remember();
        origin
    }

    pub fn play(acts: &[Act], tombstones: usize) -> Origin {
        let mut origin = Origin::new(node(1), tombstones);
        for act in acts {
            origin.act(act);
        }
        origin
    }

    pub fn act(&mut self, act: &Act) {
        match act {
            Act::Put(k, v) => drop(self.store.put(key(*k), value(*v))),
            Act::Delete(k) => drop(self.store.delete(&key(*k))),
            Act::Restart => {
                self.store =
                    Store::new(self.store.me(), generation(self.generations), tuning(self.tombstones));
                self.generations += 1;
            }
        }
        self.remember();
    }

    pub fn id(&self) -> NodeId {
        self.store.me()
    }

    pub fn content(&self) -> &Arc<Content> {
        self.store.content(&self.id()).unwrap()
    }

    /// The content after one of the acts so far, selected by an arbitrary number.
    pub fn at(&self, moment: usize) -> &Arc<Content> {
        self.history.values().nth(moment % self.history.len()).unwrap()
    }

    /// The content at a version of the first generation.
    pub fn at_version(&self, version: Version) -> Option<&Arc<Content>> {
        self.history.iter().find(|(stamp, _)| stamp.version == version).map(|(_, content)| content)
    }

    fn remember(&mut self) {
        let content = Arc::clone(self.content());
        self.history.insert(content.stamp(), content);
    }
}

/// Whether two contents look the same to readers.
pub fn same(a: &Content, b: &Content) -> bool {
    a.stamp() == b.stamp() && a.iter().eq(b.iter())
}

/// A store without entries of its own.
pub fn replica(number: u8, tombstones: usize) -> Store {
    Store::new(node(100 + number), generation(0), tuning(tombstones))
}

/// The transfer of `content` to a replica that has `have`, in parts of at most `budget` bytes.
pub fn parts(origin: NodeId, content: &Arc<Content>, have: Option<Stamp>, budget: usize) -> Vec<Update> {
    let store = Store::with_own(origin, Arc::clone(content), tuning(usize::MAX));
    let Some(mut transfer) = store.transfer(&origin, have) else { return Vec::new() };
    std::iter::from_fn(|| transfer.next_part(budget)).collect()
}

/// Transfers one origin's content from one store to another, in parts of at most `budget` bytes, and returns the
/// effects of all parts.
pub fn pull(to: &mut Store, from: &Store, origin: NodeId, budget: usize) -> Vec<Applied> {
    let mut log = Vec::new();
    let mut have = to.stamp(&origin);
    for _ in 0..3 {
        let Some(mut transfer) = from.transfer(&origin, have) else { break };
        let mut again = false;
        while let Some(part) = transfer.next_part(budget) {
            let applied = to.apply(Source(7), part, |_| true).unwrap();
            match applied.effect {
                Effect::Missing(Need::Snapshot) => (again, have) = (true, None),
                Effect::Missing(Need::Newer(stamp)) => (again, have) = (true, stamp),
                _ => {}
            }
            log.push(applied);
        }
        if !again {
            break;
        }
    }
    log
}
