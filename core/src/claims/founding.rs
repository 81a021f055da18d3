//! Deciding who votes, once, while all voters are there and all their stores are new.
//!
//! The first voter of the list waits until it has heard from all others, draws up the founding, stores it, and sends it
//! to the others. Each accepts it once, and only if it names its own store. So a store that is lost later is no voter,
//! and nobody counts its vote: the promises that it has forgotten may have decided something.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Founding, Frame, Voter};

use super::engine::Index;

/// How often a voter tells the first one that it is there.
const ANNOUNCE_MS: u64 = 1_000;

/// A digest of a list of voters (FNV-1a).
#[must_use]
pub fn digest(hosts: &[String]) -> u64 {
    let bytes = hosts.iter().flat_map(|host| host.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A voter before the founding.
#[derive(Debug)]
pub(super) struct Unfounded {
    pub(super) own: Index,
    pub(super) hosts: Vec<String>,
    pub(super) own_id: NodeId,
    pub(super) store: u64,
    /// The tag and the number of the founding, if this voter draws it up.
    pub(super) tag: u64,
    pub(super) number: Option<u64>,
    heard: BTreeMap<Index, (NodeId, u64)>,
    wake_ms: u64,
}

impl Unfounded {
    pub(super) fn new(
        own: Index,
        hosts: Vec<String>,
        own_id: NodeId,
        store: u64,
        tag: u64,
        number: Option<u64>,
    ) -> Self {
        Unfounded { own, hosts, own_id, store, tag, number, heard: BTreeMap::new(), wake_ms: 0 }
    }

    pub(super) fn wake_ms(&self) -> u64 {
        self.wake_ms
    }

    /// Makes the next [`tick`](Self::tick) announce this voter again.
    pub(super) fn wake(&mut self) {
        self.wake_ms = 0;
    }

    /// What to tell the first voter; the first one tells all others, so that it learns if they know another store of it.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<(Index, Frame)> {
        if now_ms < self.wake_ms {
            return Vec::new();
        }
        self.wake_ms = now_ms + ANNOUNCE_MS;
        let frame = Frame::Unfounded { list: digest(&self.hosts), store: self.store };
        let told = if self.own == 0 { 1..u8::try_from(self.hosts.len()).unwrap_or(u8::MAX) } else { 0..1 };
        told.map(|voter| (voter, frame.clone())).collect()
    }

    /// Whether this voter may draw the founding up alone.
    pub(super) fn alone(&self) -> Option<Founding> {
        self.complete()
    }

    /// Another voter is there.
    pub(super) fn heard(&mut self, from: Index, id: NodeId, list: u64, store: u64) -> Option<Founding> {
        if list == digest(&self.hosts) {
            self.heard.insert(from, (id, store));
        }
        self.complete()
    }

    /// Whether the founding is that of this voter.
    pub(super) fn accepts(&self, from: Index, founding: &Founding) -> bool {
        let own = founding.voters.get(usize::from(self.own));
        let hosts = founding.voters.iter().map(|voter| &voter.host);
        from == 0
            && hosts.eq(self.hosts.iter())
            && own.is_some_and(|own| own.id == self.own_id && own.store == self.store)
    }

    fn complete(&self) -> Option<Founding> {
        if self.own != 0 {
            return None;
        }
        let voters = self.hosts.iter().enumerate().map(|(index, host)| {
            let (id, store) = match u8::try_from(index).ok()? {
                0 => (self.own_id, self.store),
                index => *self.heard.get(&index)?,
            };
            Some(Voter { host: host.clone(), id, store })
        });
        let voters = voters.collect::<Option<Vec<_>>>()?;
        Some(Founding { tag: self.tag, number: self.number?, voters })
    }
}
