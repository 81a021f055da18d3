//! Which alias stands for which host, the same on all of them.
//!
//! Each daemon chooses the alias of its own host and publishes it in its signed entry. If two have chosen the same one,
//! the older holder keeps it and the younger chooses another. What a daemon says about its age proves nothing, so an
//! alias is never taken from a holder that was seen with it before:
//!
//! - A daemon that has had its alias in company for a while gives it up for nobody. One that is new among the others
//!   gives up an alias that another one claims: at once if that one has had it for longer, and otherwise when it is still
//!   claimed after a while, because then it belongs to one that is not new.
//! - To all others, an alias belongs to the daemon that they have seen with it first, until that one is expelled, takes
//!   another alias, or has been gone for some time ([`HeldNames`]). If two appear with one alias at about the same time, it
//!   belongs to nobody until one gives it up.
//!
//! So honest daemons agree within moments, and a liar gets no alias of another: at worst a host that meets both for the
//! first time uses neither, and says so. It cannot drive a new host from one alias to the next for ever either, because
//! each moves only a few times. This is a state machine; its caller has the clocks and the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::net::Ipv4Addr;

use pmd_protocol::peer::{Alias, NodeId};

use super::held_names::HeldNames;
use crate::base::first_choice::first_choice;
use crate::config::ranges::LoopbackRange;

/// Time within which entries of all members arrive after this daemon has joined them, and a claim that clashes is
/// withdrawn.
const SETTLE_MS: u64 = 10_000;
/// How often a host that is new gives up its alias: more often than honest hosts clash, even in a small range.
const MOVES: u32 = 16;
/// Time in which a daemon may change its alias as often as that. One that changes it more often has none until then: each
/// change can push a host without an agreed alias from its address.
const MOVES_MS: u64 = 3_600_000;
/// Maximum number of daemons whose changes are counted: far more than change their aliases within that time.
const MAX_MOVED: usize = 8_192;
/// The beginning of a line with an alias in the file of names. No host name contains a slash.
const ALIAS: &str = "alias/";
/// The beginning of the line with this host's own alias.
const OWN: &str = "own-alias/";

/// The aliases that all hosts agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreedAliases {
    range: LoopbackRange,
    own: Own,
    /// The daemons that claim each alias. Each claims one, so there are no more than members.
    claims: BTreeMap<Ipv4Addr, Vec<Claim>>,
    claimed: HashMap<NodeId, Ipv4Addr>,
    held: HeldNames,
    /// The daemons that have changed their aliases.
    moved: HashMap<NodeId, Moved>,
    /// How often what is written about the own alias has changed.
    changes: u64,
}

/// This host's own alias.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    id: NodeId,
    alias: Alias,
    /// Whether it is given up for nobody.
    settled: bool,
    /// When other members were seen first, in milliseconds of a monotonic clock.
    company_ms: Option<u64>,
    /// How often it was given up in this company.
    moves: u32,
}

/// The changes of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    to: Ipv4Addr,
    /// Since when they are counted, in milliseconds since the Unix epoch.
    since_ms: u64,
    times: u32,
}

/// A daemon that claims an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    id: NodeId,
    since_ms: u64,
    /// When it was seen with the alias first, in milliseconds since the Unix epoch; 0 if an earlier run of this daemon
    /// has seen it.
    seen_ms: u64,
}

/// What has become of the own alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// It stays, whoever else claims it.
    Settled,
    /// It may still have to be given up.
    Open,
    /// It was given up for this one.
    Moved(Alias),
}

/// An alias that several daemons claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The alias.
    pub address: Ipv4Addr,
    /// The daemons, in the order in which they were seen with it; without this one.
    pub by: Vec<NodeId>,
    /// Whether it is this host's own.
    pub own: bool,
    /// The daemon that it belongs to; none if it is not known which was first. For the own alias, that is this daemon.
    pub holder: Option<NodeId>,
}

impl AgreedAliases {
    /// The aliases in `range` for the daemon `own` at the time `now_ms`, as far as an earlier run has written them to
    /// `text`. A daemon that fails keeps its alias for `hold_ms` milliseconds.
    #[must_use]
    pub fn new(range: LoopbackRange, own: NodeId, hold_ms: u64, now_ms: u64, text: &str) -> AgreedAliases {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(ALIAS)).collect();
        let held = HeldNames::read(hold_ms, now_ms, &lines.join("\n"));
        let before = text.lines().find_map(|line| read_own(line, range));
        let mut aliases = AgreedAliases {
            range,
            own: Own {
                id: own,
                alias: Alias { address: Ipv4Addr::UNSPECIFIED, since_ms: now_ms },
                settled: false,
                company_ms: None,
                moves: 0,
            },
            claims: BTreeMap::new(),
            claimed: HashMap::new(),
            held,
            moved: HashMap::new(),
            changes: 0,
        };
        match before {
            Some((alias, settled)) => (aliases.own.alias, aliases.own.settled) = (alias, settled),
            None => {
                aliases.own.alias.address = aliases.free(now_ms);
                aliases.changes += 1;
            }
        }
        aliases
    }

    /// What [`new`](Self::new) reads.
    #[must_use]
    pub fn write(&self) -> String {
        let Own { alias: Alias { address, since_ms }, settled, .. } = self.own;
        let mut text = self.held.write();
        let state = if settled { "settled" } else { "open" };
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{OWN} {address} {since_ms} {state}");
        text
    }

    /// Increases whenever the text of [`write`](Self::write) has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.held.changes() + self.changes
    }

    /// This host's own alias.
    #[must_use]
    pub fn own(&self) -> Alias {
        self.own.alias
    }

    /// A live daemon has published its alias, or that it has none.
    pub fn publish(&mut self, now_ms: u64, id: NodeId, alias: Option<Alias>) {
        let alias = alias.filter(|alias| self.range.contains(alias.address));
        let alias = alias.filter(|alias| self.may_have(now_ms, id, alias.address));
        let before = self.claimed.get(&id).copied();
        if let Some(before) = before.filter(|before| Some(*before) != alias.map(|alias| alias.address)) {
            self.withdraw(now_ms, id, before, true);
        }
        let Some(Alias { address, since_ms }) = alias else { return };
        let claims = self.claims.entry(address).or_default();
        if let Some(claim) = claims.iter_mut().find(|claim| claim.id == id) {
            claim.since_ms = since_ms;
            return;
        }
        let key = key(address);
        let is_remembered = self.held.holder(&key).is_some_and(|(holder, _)| holder == id);
        self.claimed.insert(id, address);
        claims.push(Claim { id, since_ms, seen_ms: if is_remembered { 0 } else { now_ms } });
        if address != self.own.alias.address {
            self.held.claim(now_ms, &key, id);
        }
    }

    /// A daemon has failed or left. It keeps its alias for a while in both cases: each restart begins with leaving, and
    /// would be an opportunity to take it.
    pub fn gone(&mut self, now_ms: u64, id: NodeId) {
        if let Some(address) = self.claimed.get(&id).copied() {
            self.withdraw(now_ms, id, address, false);
        }
    }

    /// A daemon is expelled, so its alias is free.
    pub fn expel(&mut self, now_ms: u64, id: NodeId) {
        self.gone(now_ms, id);
        for address in self.held.release(id).iter().filter_map(|key| address_of(key)) {
            self.settle(now_ms, address);
        }
    }

    /// Forgets daemons that have been gone for too long, and gives their aliases to those that claim them. Returns whether there
    /// were any.
    pub fn forget_expired(&mut self, now_ms: u64) -> bool {
        let expired = self.held.forget_expired(now_ms);
        for address in expired.iter().filter_map(|key| address_of(key)) {
            self.settle(now_ms, address);
        }
        !expired.is_empty()
    }

    /// This daemon has no company any more, because it stops or leaves the cluster.
    pub fn clear(&mut self, now_ms: u64) {
        for id in self.claimed.keys().copied().collect::<Vec<_>>() {
            self.gone(now_ms, id);
        }
        (self.own.company_ms, self.own.moves) = (None, 0);
    }

    /// This daemon will be new in the next cluster. Not when it only stops, because it then returns to the same one.
    pub fn unsettle(&mut self) {
        self.changes += u64::from(std::mem::take(&mut self.own.settled));
    }

    /// Decides at the time `now_ms` of a monotonic clock, and `wall_ms` since the Unix epoch, whether this host keeps its
    /// alias among the other members, if it is `in_company`.
    pub fn review(&mut self, now_ms: u64, wall_ms: u64, in_company: bool) -> Review {
        let own = &mut self.own;
        if own.settled {
            return Review::Settled;
        }
        if !in_company {
            own.company_ms = None;
            return Review::Open;
        }
        let since_ms = *own.company_ms.get_or_insert(now_ms);
        let is_late = now_ms.saturating_sub(since_ms) >= SETTLE_MS;
        let order = (own.alias.since_ms, own.id);
        let rivals = self.claims.get(&own.alias.address);
        let is_claimed = rivals.is_some_and(|rivals| !rivals.is_empty());
        let by_older = rivals.into_iter().flatten().any(|rival| (rival.since_ms, rival.id) < order);
        let must_move = by_older || is_claimed && is_late;
        if own.moves >= MOVES || !must_move {
            own.settled = is_late;
            self.changes += u64::from(is_late);
            return if is_late { Review::Settled } else { Review::Open };
        }
        let given_up = own.alias.address;
        let alias = Alias { address: self.free(wall_ms), since_ms: wall_ms };
        (self.own.alias, self.own.company_ms) = (alias, Some(now_ms));
        self.own.moves += 1;
        self.changes += 1;
        // It belongs to the other one from now on.
        self.settle(wall_ms, given_up);
        Review::Moved(alias)
    }

    /// The daemon that an alias belongs to; none if that is this one or if it is not known which was first.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr) -> Option<NodeId> {
        if address == self.own.alias.address {
            return None;
        }
        let claims = self.claims.get(&address)?;
        let (holder, _) = self.held.holder(&key(address))?;
        let first = claims.iter().find(|claim| claim.id == holder)?;
        let is_first =
            |other: &Claim| other.id == holder || other.seen_ms >= first.seen_ms.saturating_add(SETTLE_MS);
        (first.seen_ms == 0 || claims.iter().all(is_first)).then_some(holder)
    }

    /// The alias that belongs to a daemon.
    #[must_use]
    pub fn of(&self, id: NodeId) -> Option<Ipv4Addr> {
        self.claimed.get(&id).copied().filter(|address| self.holder(*address) == Some(id))
    }

    /// All aliases that some daemon has published, this one included.
    #[must_use]
    pub fn published(&self) -> BTreeSet<Ipv4Addr> {
        self.claims.keys().copied().chain([self.own.alias.address]).collect()
    }

    /// The aliases that several daemons claim.
    #[must_use]
    pub fn clashes(&self) -> Vec<Clash> {
        let own = self.own.alias.address;
        let clashing = self.claims.iter().filter(|(address, claims)| claims.len() > 1 || **address == own);
        let clash = |(address, claims): (&Ipv4Addr, &Vec<Claim>)| Clash {
            address: *address,
            by: claims.iter().map(|claim| claim.id).collect(),
            own: *address == own,
            holder: if *address == own { Some(self.own.id) } else { self.holder(*address) },
        };
        clashing.map(clash).collect()
    }

    /// Whether a daemon may have an alias, as far as it has not changed it too often.
    fn may_have(&mut self, now_ms: u64, id: NodeId, address: Ipv4Addr) -> bool {
        let is_counted = |moved: &Moved| now_ms.saturating_sub(moved.since_ms) < MOVES_MS;
        if self.moved.len() >= MAX_MOVED && !self.moved.contains_key(&id) {
            self.moved.retain(|_, moved| is_counted(moved));
            if self.moved.len() >= MAX_MOVED
                && let Some(oldest) = self.moved.iter().min_by_key(|(_, moved)| moved.since_ms)
            {
                let oldest = *oldest.0;
                self.moved.remove(&oldest);
            }
        }
        let new = Moved { to: address, since_ms: now_ms, times: 0 };
        let moved = self.moved.entry(id).or_insert(new);
        if !is_counted(moved) {
            *moved = Moved { to: moved.to, ..new };
        }
        moved.times = moved.times.saturating_add(u32::from(moved.to != address));
        moved.to = address;
        moved.times <= MOVES
    }

    /// The alias for this host: the one that its id says, or the next that nobody else has.
    fn free(&self, now_ms: u64) -> Ipv4Addr {
        let start = first_choice(&self.own.id.to_string());
        let is_free = |address: &Ipv4Addr| {
            !self.claims.contains_key(address) && self.held.is_free(now_ms, &key(*address))
        };
        let mut all = (0..self.range.size()).map(|offset| self.range.nth(start.wrapping_add(offset)));
        all.find(is_free).unwrap_or_else(|| self.range.nth(start))
    }

    fn withdraw(&mut self, now_ms: u64, id: NodeId, address: Ipv4Addr, given_up: bool) {
        self.claimed.remove(&id);
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|claim| claim.id != id);
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
        self.held.gone(now_ms, &key(address), id, given_up);
        self.settle(now_ms, address);
    }

    /// Gives an alias that nobody has to the daemon that has claimed it longest.
    fn settle(&mut self, now_ms: u64, address: Ipv4Addr) {
        if address == self.own.alias.address {
            return;
        }
        for claim in self.claims.get(&address).into_iter().flatten() {
            self.held.claim(now_ms, &key(address), claim.id);
        }
    }
}

impl Default for AgreedAliases {
    fn default() -> AgreedAliases {
        AgreedAliases::new(LoopbackRange::ALIASES, NodeId::MIN, 0, 0, "")
    }
}

fn key(address: Ipv4Addr) -> String {
    format!("{ALIAS}{address}")
}

fn address_of(key: &str) -> Option<Ipv4Addr> {
    key.strip_prefix(ALIAS)?.parse().ok()
}

fn read_own(line: &str, range: LoopbackRange) -> Option<(Alias, bool)> {
    let mut words = line.strip_prefix(OWN)?.split_ascii_whitespace();
    let address = words.next()?.parse().ok().filter(|address| range.contains(*address))?;
    let since_ms = words.next()?.parse().ok()?;
    Some((Alias { address, since_ms }, words.next() == Some("settled")))
}

#[cfg(test)]
mod tests;
