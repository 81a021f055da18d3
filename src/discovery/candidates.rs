//! Which of the found addresses to dial, and when.
//!
//! A state machine: it opens no socket, and time and chance are arguments. Its owner tells it what was found and what
//! became of each dial, and dials what [`due`](Candidates::due) says.
//!
//! An address is handed out once, and not again before [`joined`](Candidates::joined), [`failed`](Candidates::failed) or
//! [`oneself`](Candidates::oneself) has told how that ended; whatever else happens in between, no address is dialled twice
//! at once. After a failure there is a pause of 1 s that doubles up to 60 s, of which chance takes up to a half away.
//!
//! Where the finder knows which daemon it is, it is dialled only while that daemon is no member, and not at once but at a
//! moment that chance picks, later in greater clusters: a newcomer whose beacon a thousand daemons hear must not be
//! dialled by all of them. The first few bring it in, and the others learn of that in time.
//!
//! Addresses from [`seeds`] stay, and are dialled at once when somebody names them again; others are forgotten when they were not found again for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pmd_protocol::peer::NodeId;
use rand::{Rng, RngExt};

use super::address::{Address, AddressError};
use super::{Find, seeds};
use crate::base::backoff::Backoff;

/// Most addresses that are remembered. A plugin finds a cluster by a few of its daemons; more than this many is a flood,
/// or a cluster that is known by gossip long before.
pub const MAX_CANDIDATES: usize = 1024;
/// Most addresses that are dialled at once. Each is a socket and a TLS handshake, and one that succeeds brings the others.
pub const MAX_DIALS: usize = 32;
/// Pauses between two dials of one address.
pub const REDIAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long an address is remembered that is not found again.
pub const FORGET_MS: u64 = 600_000;
/// How much later, for every known member, a daemon may be dialled that was just heard of: that is how far apart the
/// first dials of the whole cluster are on average.
const SPREAD_MS: u64 = 10;
/// Latest first dial of a daemon that was just heard of.
const MAX_SPREAD_MS: u64 = 5000;

/// All addresses that were found. See the [module](self).
#[derive(Debug)]
pub struct Candidates {
    cluster: String,
    port: u16,
    entries: BTreeMap<Address, Entry>,
    /// Daemons that are known to live, however they were found.
    members: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Entry {
    source: &'static str,
    cluster: Option<String>,
    other_cookie: bool,
    /// Who is there.
    id: Option<NodeId>,
    /// Whether a link has proven that, and not only a beacon claims it.
    is_proven: bool,
    heard_ms: u64,
    state: State,
    /// Until when nothing that a beacon says makes it due: beacons can be sent again by anybody, who must not decide how
    /// often is dialled.
    not_before_ms: u64,
    /// Whether it was handed out and nothing was heard of it since. Apart from the state, which may change meanwhile.
    dialling: bool,
    /// How often in a row it could not be joined.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled then.
    Due(u64),
    /// There is a link to it, or it is a member.
    Joined,
    /// This daemon itself.
    Oneself,
    /// Of another cluster: shown, and never dialled.
    Foreign,
    /// To be forgotten when its dial has ended.
    Forgotten,
}

/// An address that was found, for `pmd discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The plugin that found it.
    pub source: &'static str,
    /// `HOST:PORT`.
    pub address: String,
    /// The name of its cluster, where the plugin knows.
    pub cluster: Option<String>,
    /// Whether it belongs to a cluster of that name with another cookie.
    pub other_cookie: bool,
    /// The daemon there, if it is known.
    pub id: Option<NodeId>,
    /// How long ago it was found last.
    pub heard_ms: u64,
    /// Whether there is a link to it, or it is a member.
    pub member: bool,
}

impl Candidates {
    /// For a daemon of `cluster`; where an address has no port, `port` is meant.
    pub fn new(cluster: impl Into<String>, port: u16) -> Candidates {
        Candidates { cluster: cluster.into(), port, entries: BTreeMap::new(), members: BTreeSet::new() }
    }

    /// A plugin has found something.
    ///
    /// # Errors
    ///
    /// If its address is none.
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

    /// The addresses to dial now, those first that have waited longest.
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

    /// The dial of `address` has failed, or its link was refused.
    pub fn failed(&mut self, now_ms: u64, address: &str, rng: &mut impl Rng) {
        let Some(entry) = self.ended(address) else { return };
        if matches!(entry.state, State::Due(_)) {
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before_ms = now_ms.saturating_add(millis(REDIAL.random_pause(entry.failures, rng)));
            entry.state = State::Due(entry.not_before_ms);
        }
    }

    /// It is this daemon itself that answers at `address`. Where a name stands for several addresses, only if all of them
    /// are this daemon.
    pub fn oneself(&mut self, address: &str) {
        if let Some(entry) = self.ended(address) {
            entry.state = State::Oneself;
        }
    }

    /// There is a link to the daemon `id` at `address`.
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

    /// The daemon `id` is a member, whoever has found it: it need not be dialled.
    pub fn member_found(&mut self, id: NodeId) {
        self.members.insert(id);
        for entry in self.entries.values_mut().filter(|entry| entry.id == Some(id)) {
            if matches!(entry.state, State::Due(_)) {
                entry.failures = 0;
                entry.state = State::Joined;
            }
        }
    }

    /// The daemon `id` is no member any more: its addresses are dialled again.
    pub fn member_lost(&mut self, now_ms: u64, id: NodeId, rng: &mut impl Rng) {
        self.members.remove(&id);
        let spread = self.spread();
        for entry in self.entries.values_mut().filter(|entry| entry.id == Some(id)) {
            if entry.state == State::Joined {
                entry.state = State::Due(now_ms.saturating_add(rng.random_range(0..=spread)));
            }
        }
    }

    /// Nobody wants `address` any more, until it is found again.
    pub fn forget(&mut self, address: &str) {
        let Ok(address) = Address::parse(address, self.port) else { return };
        match self.entries.get_mut(&address) {
            Some(entry) if entry.dialling => entry.state = State::Forgotten,
            _ => {
                self.entries.remove(&address);
            }
        }
    }

    /// When [`due`](Self::due) may have something, if nothing is told before; it may be in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.room() == 0 {
            return None;
        }
        self.entries.values().filter_map(Entry::due).min()
    }

    /// All addresses but those of this daemon itself, for `pmd discover`.
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

    /// The dial of `address` has ended; what is known of it, if anybody still wants it.
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

    /// Dials that may begin.
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

    /// Makes room if there is none. What anybody can send without a cookie takes no place of something else.
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

    /// Somebody has named this address himself: it is dialled `now`, unless that was done and has worked.
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

    /// The same address was found once more, as `again`.
    fn found_again(&mut self, again: Entry) {
        if again.state == State::Foreign && !matches!(self.state, State::Foreign | State::Forgotten) {
            // Anybody can send a beacon of another cluster in the name of this address.
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
        // That another daemon has this address now is believed of addresses that beacons were the first to tell. A seed is
        // dialled whatever they say.
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
