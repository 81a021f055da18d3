//! Which of the found addresses to dial, and when.
//!
//! This is a state machine: it opens no socket, and time and chance are arguments. Its owner reports what was found and how
//! each dial ended, and dials what [`due`](Candidates::due) returns.
//!
//! An address is handed out once, and not again before [`joined`](Candidates::joined), [`failed`](Candidates::failed) or
//! [`oneself`](Candidates::oneself) has reported how the dial ended. Whatever happens in between, no address is dialled
//! twice at the same time. After a failure there is a pause of 1 s that doubles up to 60 s, less a random part of up to a
//! half.
//!
//! If the finder knows the daemon's id, the daemon is dialled only while it is not a member, and after a random delay that
//! grows with the cluster: a newcomer whose beacon a thousand daemons hear must not be dialled by all of them. The first
//! few bring it in, and the others learn of it before their delay is over.
//!
//! Addresses from [`seeds`] are never forgotten, and are dialled at once when they are named again. Other addresses are
//! forgotten after ten minutes in which they were not found again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use rand::{Rng, RngExt};

use super::{Find, seeds};
use crate::base::backoff::Backoff;
use crate::config::address::{Address, AddressError};

/// Most addresses that are remembered. A few daemons are enough to find a cluster; more than this many is a flood, or a
/// cluster whose members are known by gossip long before.
pub const MAX_CANDIDATES: usize = 1024;
/// Most addresses that are dialled at once. Each costs a socket and a TLS handshake, and one that succeeds makes the others
/// known.
pub const MAX_DIALS: usize = 32;
/// Pauses between two dials of one address.
pub const REDIAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long an address is remembered after it was last found.
pub const FORGET_MS: u64 = 600_000;
/// How much the random delay before the first dial grows with each known member: the average time between the first dials
/// of the whole cluster.
const SPREAD_MS: u64 = 10;
/// Longest random delay before the first dial.
const MAX_SPREAD_MS: u64 = 5000;

/// All addresses that were found. See the [module](self).
#[derive(Debug)]
pub struct Candidates {
    cluster: String,
    port: u16,
    entries: BTreeMap<Address, Entry>,
    /// Daemons that are known to be members, however they were found.
    members: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Entry {
    source: &'static str,
    cluster: Option<String>,
    other_cookie: bool,
    /// The daemon at this address, if it is known.
    id: Option<NodeId>,
    /// Whether a link has proven the id. Otherwise only a beacon claims it.
    is_proven: bool,
    heard_ms: u64,
    state: State,
    /// No beacon makes it due before this time: anybody can replay beacons, and must not decide how often this daemon
    /// dials.
    not_before_ms: u64,
    /// Whether it was handed out and its dial has not ended. Kept apart from the state, which may change meanwhile.
    dialling: bool,
    /// How many dials have failed in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled at this time.
    Due(u64),
    /// It has a link to this daemon, or is a member.
    Joined,
    /// The address of this daemon itself.
    Oneself,
    /// A daemon of another cluster: shown and never dialled.
    Foreign,
    /// To be removed when its dial has ended.
    Forgotten,
}

/// An address that was found, for `pmd discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The plugin that found it.
    pub source: &'static str,
    /// `HOST:PORT`.
    pub address: String,
    /// The name of its cluster, if the plugin knows it.
    pub cluster: Option<String>,
    /// Whether it belongs to a cluster of that name with another secret.
    pub other_cookie: bool,
    /// The daemon there, if it is known.
    pub id: Option<NodeId>,
    /// How long ago it was last found.
    pub heard_ms: u64,
    /// Whether it has a link to this daemon or is a member.
    pub member: bool,
}

impl Candidates {
    /// The candidates of a daemon of `cluster`. `port` is the default for addresses without a port.
    pub fn new(cluster: impl Into<String>, port: u16) -> Candidates {
        Candidates { cluster: cluster.into(), port, entries: BTreeMap::new(), members: BTreeSet::new() }
    }

    /// Records what a plugin has found.
    ///
    /// # Errors
    ///
    /// If the address is not valid.
    pub fn found(
        &mut self,
        now_ms: u64,
        source: &'static str,
        find: Find,
        rng: &mut impl Rng,
    ) -> Result<(), AddressError> {
        let address = Address::parse(&find.address, self.port)?;
        self.forget_old(now_ms);
        let foreign = find.other_cookie || find.cluster.as_ref().is_some_and(|name| *name != self.cluster);
        let is_member = find.id.is_some_and(|id| self.members.contains(&id));
        let state = match find.id {
            _ if foreign => State::Foreign,
            _ if is_member => State::Joined,
            Some(_) => State::Due(now_ms.saturating_add(self.first_pause(rng))),
            None => State::Due(now_ms),
        };
        let entry = Entry {
            source,
            cluster: find.cluster,
            other_cookie: find.other_cookie,
            id: find.id,
            is_proven: false,
            heard_ms: now_ms,
            state,
            not_before_ms: 0,
            dialling: false,
            failures: 0,
        };
        match self.entries.get_mut(&address) {
            Some(known) => known.found_again(entry),
            None => self.insert(address, entry),
        }
        Ok(())
    }

    /// The addresses to dial now, the longest waiting first.
    pub fn due(&mut self, now_ms: u64) -> Vec<String> {
        self.forget_old(now_ms);
        let mut due: Vec<(u64, &Address)> = self
            .entries
            .iter()
            .filter_map(|(address, entry)| Some((entry.due()?, address)))
            .filter(|(due, _)| *due <= now_ms)
            .collect();
        due.sort_unstable();
        due.truncate(self.room());
        let due: Vec<Address> = due.into_iter().map(|(_, address)| address.clone()).collect();
        for address in &due {
            if let Some(entry) = self.entries.get_mut(address) {
                entry.dialling = true;
            }
        }
        due.iter().map(Address::to_string).collect()
    }

    /// Records that the dial of `address` has failed, or that its link was refused.
    pub fn failed(&mut self, now_ms: u64, address: &str, rng: &mut impl Rng) {
        let Some(entry) = self.ended(address) else { return };
        if matches!(entry.state, State::Due(_)) {
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before_ms = now_ms.saturating_add(millis(REDIAL.random_pause(entry.failures, rng)));
            entry.state = State::Due(entry.not_before_ms);
        }
    }

    /// Records that this daemon itself answers at `address`. If a name has several addresses, all of them must lead to this
    /// daemon.
    pub fn oneself(&mut self, address: &str) {
        if let Some(entry) = self.ended(address) {
            entry.state = State::Oneself;
        }
    }

    /// Records that there is a link to the daemon `id` at `address`.
    pub fn joined(&mut self, now_ms: u64, address: &str, id: NodeId) {
        self.member_found(id);
        if let Some(entry) = self.ended(address) {
            entry.heard_ms = now_ms;
            entry.id = Some(id);
            entry.is_proven = true;
            entry.failures = 0;
            entry.not_before_ms = now_ms.saturating_add(millis(REDIAL.longest()));
            entry.state = State::Joined;
        }
    }

    /// Records that the daemon `id` is a member, however it was found: it need not be dialled.
    pub fn member_found(&mut self, id: NodeId) {
        self.members.insert(id);
        for entry in self.entries.values_mut().filter(|entry| entry.id == Some(id)) {
            if matches!(entry.state, State::Due(_)) {
                entry.failures = 0;
                entry.state = State::Joined;
            }
        }
    }

    /// Records that the daemon `id` is no longer a member: its addresses are dialled again.
    pub fn member_lost(&mut self, now_ms: u64, id: NodeId, rng: &mut impl Rng) {
        self.members.remove(&id);
        let spread = self.spread();
        for entry in self.entries.values_mut().filter(|entry| entry.id == Some(id)) {
            if entry.state == State::Joined {
                entry.state = State::Due(now_ms.saturating_add(rng.random_range(0..=spread)));
            }
        }
    }

    /// Forgets `address` until it is found again.
    pub fn forget(&mut self, address: &str) {
        let Ok(address) = Address::parse(address, self.port) else { return };
        match self.entries.get_mut(&address) {
            Some(entry) if entry.dialling => entry.state = State::Forgotten,
            _ => {
                self.entries.remove(&address);
            }
        }
    }

    /// When [`due`](Self::due) may return something, if nothing is recorded before; it may be in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.room() == 0 {
            return None;
        }
        self.entries.values().filter_map(Entry::due).min()
    }

    /// All addresses except those of this daemon itself, for `pmd discover`.
    pub fn list(&mut self, now_ms: u64) -> Vec<Listed> {
        self.forget_old(now_ms);
        let hidden = [State::Forgotten, State::Oneself];
        let shown = self.entries.iter().filter(|(_, entry)| !hidden.contains(&entry.state));
        shown
            .map(|(address, entry)| Listed {
                source: entry.source,
                address: address.to_string(),
                cluster: entry.cluster.clone(),
                other_cookie: entry.other_cookie,
                id: entry.id,
                heard_ms: now_ms.saturating_sub(entry.heard_ms),
                member: entry.state == State::Joined,
            })
            .collect()
    }

    /// Ends the dial of `address` and returns its entry, unless it was forgotten.
    fn ended(&mut self, address: &str) -> Option<&mut Entry> {
        let address = Address::parse(address, self.port).ok()?;
        if self.entries.get(&address)?.state == State::Forgotten {
            self.entries.remove(&address);
            return None;
        }
        let entry = self.entries.get_mut(&address)?;
        entry.dialling = false;
        Some(entry)
    }

    /// How many more dials may begin.
    fn room(&self) -> usize {
        MAX_DIALS.saturating_sub(self.entries.values().filter(|entry| entry.dialling).count())
    }

    fn spread(&self) -> u64 {
        let members = u64::try_from(self.members.len()).unwrap_or(u64::MAX);
        members.saturating_mul(SPREAD_MS).min(MAX_SPREAD_MS)
    }

    fn first_pause(&self, rng: &mut impl Rng) -> u64 {
        rng.random_range(0..=self.spread())
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.entries.retain(|_, entry| {
            entry.is_seed() || entry.dialling || now_ms.saturating_sub(entry.heard_ms) < FORGET_MS
        });
    }

    /// Makes room if there is none. What can be forged without the cluster secret does not displace anything else.
    fn insert(&mut self, address: Address, entry: Entry) {
        if self.entries.len() >= MAX_CANDIDATES {
            let dispensable = self
                .entries
                .iter()
                .filter(|(_, old)| !old.is_seed() && !old.dialling)
                .filter(|(_, old)| old.state == State::Foreign || entry.state != State::Foreign)
                .min_by_key(|(_, old)| (old.state != State::Foreign, old.heard_ms))
                .map(|(address, _)| address.clone());
            let Some(dispensable) = dispensable else { return };
            self.entries.remove(&dispensable);
        }
        self.entries.insert(address, entry);
    }
}

impl Entry {
    fn is_seed(&self) -> bool {
        self.source == seeds::NAME && self.state != State::Forgotten
    }

    /// When it is to be dialled.
    fn due(&self) -> Option<u64> {
        match self.state {
            State::Due(due) if !self.dialling => Some(due),
            _ => None,
        }
    }

    /// Records that this address was named explicitly: its state is `now`, unless it was dialled with success.
    fn named(&mut self, now: State) {
        self.source = seeds::NAME;
        self.failures = 0;
        if !self.is_proven {
            self.id = None;
        }
        if matches!(self.state, State::Due(_)) || (self.state == State::Joined && !self.is_proven) {
            self.state = now;
        }
    }

    /// Records that the same address was found again, as `again`.
    fn found_again(&mut self, again: Entry) {
        if again.state == State::Foreign && !matches!(self.state, State::Foreign | State::Forgotten) {
            // Anybody can forge a beacon of another cluster that comes from this address.
            return;
        }
        if matches!(self.state, State::Foreign | State::Forgotten) {
            *self = Entry { dialling: self.dialling, ..again };
            return;
        }
        if again.is_seed() {
            self.named(again.state);
        }
        if !self.is_seed() {
            self.source = again.source;
        }
        self.cluster = again.cluster.or(self.cluster.take());
        self.heard_ms = again.heard_ms;
        // A beacon may say that another daemon has this address now only if a beacon was the source of the address. A seed
        // is dialled whatever beacons say.
        if again.id.is_none() || again.id == self.id || self.is_seed() || self.state == State::Oneself {
            return;
        }
        self.id = again.id;
        self.is_proven = false;
        self.state = match again.state {
            State::Due(due) => State::Due(due.max(self.not_before_ms)),
            other => other,
        };
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
