//! Decides which unproven connections are served while there are more than there is room for. A state machine without
//! sockets: the caller passes the time, closes what is evicted and reports what ends.
//!
//! ```text
//!   admitted ──▶ Hello ──▶ Proof ──▶ ended      Hello: its ClientHello is incomplete; at most HELLO_TIMEOUT
//!                  └─ evicted ─┘                Proof: the rest of the handshake
//! ```
//!
//! An honest peer sends its whole ClientHello within a round trip. Whoever holds a place without having done so is the
//! first to go when there is no room, so a newcomer is not turned away by connections that only drip bytes. Three rings
//! have a quota each: an address, its network (/24 of IPv4, /64 of IPv6), and everybody. Room is made in the ring that
//! is full: by the oldest incomplete connection of whichever source has the most of them, so an attacker displaces
//! itself. A source is an IPv4 address or a /64 of IPv6, any address of which one host can use. If all have sent a
//! ClientHello and stall afterwards, a source that has more of them than the newcomer's gives one up.
//!
//! Members and configured seeds have a reserved share that strangers cannot use, and are strangers beyond it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::base::source::one_host;

/// Time for a whole ClientHello: it takes an honest peer a round trip, or two if a packet is lost.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// Concurrent handshakes of strangers. At about 25 KiB each, this bounds the memory that unauthenticated peers can use.
pub const MAX_STRANGERS: usize = 384;
/// Concurrent handshakes from one network, so that one network cannot use all of them, and enough for all hosts of a /24
/// that start together.
pub const MAX_OF_NETWORK: usize = 288;
/// Concurrent handshakes from one address: enough for several hosts behind one NAT to start together.
pub const MAX_OF_ADDRESS: usize = 48;
/// Concurrent handshakes that are reserved for known addresses: those of members and of configured seeds.
pub const MAX_KNOWN: usize = 32;
/// The part of the reserved handshakes that one address can use: its daemon needs one link and now and then a one-shot
/// connection, and others on that host must not use up the share of all members.
pub const MAX_OF_KNOWN_ADDRESS: usize = 4;
/// An attack is over once nobody had to give way or was turned away for this long.
const QUIET_MS: u64 = 30_000;

/// Identifies an admitted connection. A later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A connection that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The connection, to be passed back when it gets further and when it ends.
    pub ticket: Ticket,
    /// A connection that must be closed to make room, and its address. It is no longer counted.
    pub evicted: Option<(Ticket, IpAddr)>,
}

/// The ring in which there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The address has its quota.
    #[error("too many handshakes in progress from this address")]
    Address,
    /// The network of the address has its quota.
    #[error("too many handshakes in progress from the network of this address")]
    Network,
    /// Everybody together has.
    #[error("too many handshakes in progress")]
    All,
}

/// A time in which connections had to give way or were turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// When it began.
    pub since_ms: u64,
    /// When this last happened.
    pub last_ms: u64,
    /// How many connections it affected.
    pub displaced: u64,
    /// The address that was affected last: most likely one that causes it.
    pub address: IpAddr,
}

/// The handshakes in progress.
#[derive(Debug, Default)]
pub struct Admission {
    entries: BTreeMap<Ticket, Entry>,
    last: u64,
    pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: IpAddr,
    source: IpAddr,
    network: IpAddr,
    stage: Stage,
    /// Whether it uses the share of known addresses.
    reserved: bool,
}

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its ClientHello is incomplete.
    Hello,
    /// It has sent its ClientHello.
    Proof,
}

impl Admission {
    /// Admits a connection, if there is room or room can be made. `known` is whether its address is that of a member or
    /// of a configured seed.
    ///
    /// # Errors
    ///
    /// If there is no room, and nobody who has to give way.
    pub fn admit(&mut self, now_ms: u64, address: IpAddr, known: bool) -> Result<Admitted, Full> {
        let entry = Entry::new(address.to_canonical());
        let address = entry.address;
        if known && self.has_reserve_for(address) {
            let ticket = self.insert(Entry { reserved: true, ..entry });
            return Ok(Admitted { ticket, evicted: None });
        }
        let evicted = match self.make_room(&entry) {
            Ok(evicted) => evicted,
            Err(full) => {
                self.press(now_ms, address);
                return Err(full);
            }
        };
        let evicted = evicted.and_then(|ticket| Some((ticket, self.entries.remove(&ticket)?.address)));
        if let Some((_, address)) = evicted {
            self.press(now_ms, address);
        }
        Ok(Admitted { ticket: self.insert(entry), evicted })
    }

    /// A connection has sent its whole ClientHello.
    pub fn hello_complete(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.stage = Stage::Proof;
        }
    }

    /// A connection has ended or is proven. One that was evicted is not counted any more.
    pub fn end(&mut self, ticket: Ticket) {
        self.entries.remove(&ticket);
    }

    /// The current attack, if there is one.
    #[must_use]
    pub fn pressure(&self, now_ms: u64) -> Option<Pressure> {
        self.pressure.filter(|pressure| now_ms.saturating_sub(pressure.last_ms) < QUIET_MS)
    }

    /// How many handshakes are in progress.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, entry: Entry) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.entries.insert(ticket, entry);
        ticket
    }

    fn has_reserve_for(&self, address: IpAddr) -> bool {
        let reserved = || self.entries.values().filter(|entry| entry.reserved);
        reserved().count() < MAX_KNOWN
            && reserved().filter(|entry| entry.address == address).count() < MAX_OF_KNOWN_ADDRESS
    }

    /// The connection that has to give way for `newcomer`, if any has to: in the innermost ring that is full, because that
    /// makes room in the outer ones as well.
    fn make_room(&self, newcomer: &Entry) -> Result<Option<Ticket>, Full> {
        let count = |ring: &dyn Fn(&Entry) -> bool| self.strangers().filter(|(_, entry)| ring(entry)).count();
        let same_address = |entry: &Entry| entry.address == newcomer.address;
        let same_network = |entry: &Entry| entry.network == newcomer.network;
        if count(&same_address) >= MAX_OF_ADDRESS {
            return self.incomplete(&same_address).map(Some).ok_or(Full::Address);
        }
        let give_up = |ring: &dyn Fn(&Entry) -> bool| {
            self.incomplete(ring).or_else(|| self.stalled(newcomer.source, ring))
        };
        if count(&same_network) >= MAX_OF_NETWORK {
            return give_up(&same_network).map(Some).ok_or(Full::Network);
        }
        if self.strangers().count() >= MAX_STRANGERS {
            return give_up(&|_| true).map(Some).ok_or(Full::All);
        }
        Ok(None)
    }

    /// The connection in a ring that has to give way first of those without a whole ClientHello.
    fn incomplete(&self, ring: &dyn Fn(&Entry) -> bool) -> Option<Ticket> {
        self.heaviest(&|entry| entry.stage == Stage::Hello && ring(entry)).map(|(ticket, _)| ticket)
    }

    /// The connection in a ring that has to give way if all have sent a ClientHello: one of a source that has at least
    /// two more than the newcomer's, so that no two sources displace each other in turn.
    fn stalled(&self, newcomer: IpAddr, ring: &dyn Fn(&Entry) -> bool) -> Option<Ticket> {
        let own = self.strangers().filter(|(_, entry)| entry.source == newcomer).count();
        self.heaviest(ring).filter(|(_, count)| *count > own + 1).map(|(ticket, _)| ticket)
    }

    /// Of the connections that count, the oldest of whichever source has the most of them, and how many that source has.
    fn heaviest(&self, counts: &dyn Fn(&Entry) -> bool) -> Option<(Ticket, usize)> {
        let counted: Vec<_> = self.strangers().filter(|(_, entry)| counts(entry)).collect();
        let mut weights: HashMap<IpAddr, usize> = HashMap::new();
        for (_, entry) in &counted {
            *weights.entry(entry.source).or_default() += 1;
        }
        let weighed = counted
            .iter()
            .map(|(ticket, entry)| (*ticket, weights.get(&entry.source).copied().unwrap_or_default()));
        // Of several with the same weight, `rev` makes `max_by_key` choose the oldest.
        weighed.rev().max_by_key(|(_, weight)| *weight)
    }

    /// The connections that use no reserved share, oldest first.
    fn strangers(&self) -> impl Iterator<Item = (Ticket, &Entry)> {
        self.entries.iter().filter(|(_, entry)| !entry.reserved).map(|(ticket, entry)| (*ticket, entry))
    }

    fn press(&mut self, now_ms: u64, address: IpAddr) {
        let begun = Pressure { since_ms: now_ms, last_ms: now_ms, displaced: 0, address };
        let before = self.pressure(now_ms).unwrap_or(begun);
        let displaced = before.displaced.saturating_add(1);
        self.pressure = Some(Pressure { last_ms: now_ms, displaced, address, ..before });
    }
}

impl Entry {
    fn new(address: IpAddr) -> Entry {
        let source = one_host(address);
        let network = match source {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8)).into(),
            IpAddr::V6(_) => source,
        };
        Entry { address, source, network, stage: Stage::Hello, reserved: false }
    }
}

#[cfg(test)]
mod tests;
