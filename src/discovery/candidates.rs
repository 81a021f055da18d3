//! Decides which of the found addresses to dial, and when.
//!
//! This is a state machine: it opens no sockets, and time and randomness are arguments. Its owner reports finds and the
//! results of dials, and dials the addresses returned by [`due`](Candidates::due).
//!
//! An address is returned once, and not again before [`joined`](Candidates::joined), [`failed`](Candidates::failed) or
//! [`mark_this_daemon`](Candidates::mark_this_daemon) has reported the result of the dial, so no address is ever
//! dialled twice concurrently. After a failure there is a pause of 1 s that doubles up to 60 s, minus a random part of
//! up to one half.
//!
//! If the plugin knows the daemon's id, the daemon is dialled only while it is not a member, and after a random delay
//! that grows with the cluster: a newcomer whose beacon is heard by a thousand daemons must not be dialled by all of
//! them. The first few admit it, and the others learn of it before their delay is over.
//!
//! Addresses from [`seeds`] are never forgotten, and are dialled at once when they are named again. Other addresses are
//! forgotten when they have not been found for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use rand::{Rng, RngExt};

use super::{Find, seeds};
use crate::base::backoff::Backoff;
use crate::config::address::{Address, AddressError};

/// Maximum number of remembered addresses. A few daemons are enough to find a cluster; more than this is a flood, or a
/// large cluster whose members become known by gossip much earlier.
pub const MAX_CANDIDATES: usize = 1024;
/// Maximum number of concurrent dials. Each costs a socket and a TLS handshake, and one success makes the other members
/// known.
pub const MAX_DIALS: usize = 32;
/// Pauses between dials of the same address.
pub const REDIAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long an address is remembered after it was last found.
pub const FORGET_MS: u64 = 600_000;
/// Growth of the random delay before the first dial per known member: the average interval between the first dials of
/// the whole cluster.
const SPREAD_MS: u64 = 10;
/// Upper limit of the random delay before the first dial.
const MAX_SPREAD_MS: u64 = 5000;

/// All found addresses. See the [module](self).
#[derive(Debug)]
pub struct Candidates {
    cluster: String,
    port: u16,
    entries: BTreeMap<Address, Entry>,
    /// Daemons known to be members, however they were found.
    members: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Entry {
    source: &'static str,
    cluster: Option<String>,
    other_cookie: bool,
    /// The daemon at this address, if known.
    id: Option<NodeId>,
    /// Whether a link has proven the id. Otherwise a beacon merely claims it.
    is_proven: bool,
    heard_ms: u64,
    state: State,
    /// No beacon makes the address due before this time, because replayed beacons must not determine how often it is
    /// dialled.
    not_before_ms: u64,
    /// Whether a dial is in progress. Separate from the state, which may change in the meantime.
    dialling: bool,
    /// Number of consecutive failed dials.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled at this time.
    Due(u64),
    /// Linked to this daemon, or a member.
    Joined,
    /// The address of this daemon itself.
    ThisDaemon,
    /// A daemon of another cluster: shown but never dialled.
    Foreign,
    /// To be removed when its dial ends.
    Forgotten,
}

/// A found address, for `pmd discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The plugin that found it.
    pub source: &'static str,
    /// `HOST:PORT`.
    pub address: String,
    /// The daemon's cluster name, if the plugin knows it.
    pub cluster: Option<String>,
    /// Whether the daemon belongs to a cluster with the same name but a different secret.
    pub other_cookie: bool,
    /// The id of the daemon at this address, if known.
    pub id: Option<NodeId>,
    /// Milliseconds since it was last found.
    pub heard_ms: u64,
    /// Whether it is linked to this daemon or a member.
    pub member: bool,
}

impl Candidates {
    /// Creates the candidates of a daemon in `cluster`. `port` is the default for addresses without a port.
    pub fn new(cluster: impl Into<String>, port: u16) -> Candidates {
        Candidates { cluster: cluster.into(), port, entries: BTreeMap::new(), members: BTreeSet::new() }
    }

    /// Records a find of a plugin.
    ///
    /// # Errors
    ///
    /// If the address is invalid.
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

    /// Returns the addresses to dial now, those waiting longest first.
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

    /// Records that the dial of `address` failed, or that one side rejected the other.
    pub fn failed(&mut self, now_ms: u64, address: &str, rng: &mut impl Rng) {
        let Some(entry) = self.ended(address) else { return };
        if matches!(entry.state, State::Due(_)) {
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before_ms = now_ms.saturating_add(millis(REDIAL.random_pause(entry.failures, rng)));
            entry.state = State::Due(entry.not_before_ms);
        }
    }

    /// Records that this daemon itself answers at `address`. If `address` is a name with several addresses, all of them
    /// must lead to this daemon.
    pub fn mark_this_daemon(&mut self, address: &str) {
        if let Some(entry) = self.ended(address) {
            entry.state = State::ThisDaemon;
        }
    }

    /// Records a link to the daemon `id` at `address`.
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

    /// Records that the daemon `id` is a member, so that it is not dialled.
    pub fn member_found(&mut self, id: NodeId) {
        self.members.insert(id);
        for entry in self.entries.values_mut().filter(|entry| entry.id == Some(id)) {
            if matches!(entry.state, State::Due(_)) {
                entry.failures = 0;
                entry.state = State::Joined;
            }
        }
    }

    /// Records that the daemon `id` is no longer a member, so that its addresses are dialled again.
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

    /// The time at which [`due`](Self::due) may next return something, unless something is recorded before. It may be
    /// in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.room() == 0 {
            return None;
        }
        self.entries.values().filter_map(Entry::due).min()
    }

    /// Whether `address` comes from the configuration or from a user.
    #[must_use]
    pub fn is_seed(&self, address: &str) -> bool {
        let address = Address::parse(address, self.port).ok();
        address.and_then(|address| self.entries.get(&address)).is_some_and(Entry::is_seed)
    }

    /// Lists all addresses except those of this daemon itself, for `pmd discover`.
    pub fn list(&mut self, now_ms: u64) -> Vec<Listed> {
        self.forget_old(now_ms);
        let hidden = [State::Forgotten, State::ThisDaemon];
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

    /// Marks the dial of `address` as ended and returns its entry, unless it was forgotten.
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

    /// The number of dials that may be started.
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

    /// Inserts an entry, evicting another if there is no room. Finds that can be forged without the cluster secret
    /// evict only each other.
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

    /// The time at which the address is to be dialled.
    fn due(&self) -> Option<u64> {
        match self.state {
            State::Due(due) if !self.dialling => Some(due),
            _ => None,
        }
    }

    /// Records that this address was named explicitly, which sets its state to `now` unless it was dialled
    /// successfully.
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

    /// Records that this address was found again, as `again`.
    fn found_again(&mut self, again: Entry) {
        if again.state == State::Foreign && !matches!(self.state, State::Foreign | State::Forgotten) {
            // Anybody can forge a beacon of another cluster from this address.
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
        // A beacon may reassign the address to another daemon, except for a seed, which is dialled whatever beacons
        // claim.
        if again.id.is_none() || again.id == self.id || self.is_seed() || self.state == State::ThisDaemon {
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
