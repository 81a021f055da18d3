//! The open tunnels of this host, both entries and exits, and their limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_epmd::counters::Counter;
use pmd_protocol::peer::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::base::source::{one_host, release};
use crate::base::stats::Counters;
use crate::directory::Target;
use crate::directory::cluster::Registered;

/// Descriptors per tunnel: one connection to a program and one to another daemon.
const DESCRIPTORS: usize = 2;
/// Tunnels may use one out of this many descriptors.
const SHARE: usize = 4;
/// Minimum value of the limit, and of a share of it.
const LEAST: usize = 16;
/// One member, and all members at one address, may use one out of this many tunnels that others open to this host or
/// through it, so that none can use them all.
const SHARE_OF_MEMBER: usize = 4;

/// Which end of a tunnel is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// The entry: a program on this host is connected to this registration on another host.
    Entry(Target, Registered),
    /// The exit: another daemon is connected to a registration on this host.
    Exit {
        /// The other daemon.
        from: NodeId,
        /// The name of the node or service.
        name: Box<str>,
        /// Whether it is a service.
        service: bool,
        /// The id of its registration.
        registration: u64,
    },
}

/// An open tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// The end on this host.
    pub side: Side,
    /// The host of the other end.
    pub host: String,
    /// The name of the path that it takes.
    pub path: &'static str,
    /// Bytes transferred in both directions.
    pub bytes: Counter,
    close: CancellationToken,
}

impl Tunnel {
    /// Requests the end of the tunnel.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// Waits until the end of the tunnel is requested.
    pub async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// The open tunnels, and the bytes of those that have ended.
#[derive(Debug, Default)]
struct Open {
    tunnels: HashMap<u64, Arc<Tunnel>>,
    /// Bytes of ended tunnels. Under the same lock as the open ones, so that the total never decreases.
    ended: u64,
}

/// Why another host gets no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSeat {
    /// The limit is reached.
    #[error("the limit of open tunnels is reached")]
    Full,
    /// The member has its share.
    #[error("this member has {0} tunnels open here, which is its share: close some")]
    Member(usize),
    /// The members at this address have their share.
    #[error("the members at this address have {0} tunnels open here, which is their share: close some")]
    Address(usize),
}

impl NoSeat {
    /// Counts the rejected tunnel.
    pub fn count(self, counters: &Counters) {
        match self {
            NoSeat::Full => counters.tunnels_full.add(),
            NoSeat::Member(_) | NoSeat::Address(_) => counters.tunnels_over_share.add(),
        }
    }
}

/// Who uses a tunnel: the member, and its network unless a relay hides it.
type User = (NodeId, Option<IpAddr>);

/// The numbers of tunnels by user.
#[derive(Debug, Default)]
struct Shares {
    members: HashMap<NodeId, usize>,
    networks: HashMap<IpAddr, usize>,
}

/// The table of open tunnels.
#[derive(Debug)]
pub struct Table {
    limit: usize,
    used: AtomicUsize,
    shares: Mutex<Shares>,
    next: AtomicU64,
    open: Mutex<Open>,
    /// Notified when an exit opens.
    first_exit: Notify,
}

/// A permit for one tunnel, returned on drop.
#[derive(Debug)]
pub struct Seat<'a> {
    table: &'a Table,
    /// The other host that uses it; none if it is for programs on this host.
    user: Option<User>,
}

/// A tunnel in the table, removed on drop.
#[derive(Debug)]
pub struct Listed<'a> {
    table: &'a Table,
    number: u64,
    /// The tunnel.
    pub tunnel: Arc<Tunnel>,
    _seat: Seat<'a>,
}

impl Table {
    /// Creates an empty table for a process that may open `descriptors` descriptors.
    #[must_use]
    pub fn new(descriptors: usize) -> Table {
        Table {
            limit: (descriptors / SHARE / DESCRIPTORS).max(LEAST),
            used: AtomicUsize::new(0),
            shares: Mutex::default(),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            first_exit: Notify::new(),
        }
    }

    /// The maximum number of open tunnels.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The maximum number of tunnels of one member, and of all members at one address.
    pub fn share(&self) -> usize {
        (self.limit / SHARE_OF_MEMBER).max(LEAST)
    }

    /// Returns a permit for one more tunnel of programs on this host, unless the limit is reached.
    pub fn seat(&self) -> Option<Seat<'_>> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { table: self, user: None };
        (used < self.limit).then_some(seat)
    }

    /// Returns a permit for one more tunnel of a member at `address`, if that is known.
    ///
    /// # Errors
    ///
    /// If the limit is reached, or the member or its address has its share.
    pub fn seat_for(&self, member: NodeId, address: Option<IpAddr>) -> Result<Seat<'_>, NoSeat> {
        let mut seat = self.seat().ok_or(NoSeat::Full)?;
        let network = address.map(one_host);
        let share = self.share();
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.members.get(&member).is_some_and(|used| *used >= share) {
            return Err(NoSeat::Member(share));
        }
        if network.and_then(|network| shares.networks.get(&network)).is_some_and(|used| *used >= share) {
            return Err(NoSeat::Address(share));
        }
        *shares.members.entry(member).or_default() += 1;
        if let Some(network) = network {
            *shares.networks.entry(network).or_default() += 1;
        }
        seat.user = Some((member, network));
        Ok(seat)
    }

    /// Adds an open tunnel.
    pub fn add<'a>(&'a self, seat: Seat<'a>, side: Side, host: String, path: &'static str) -> Listed<'a> {
        let is_exit = matches!(side, Side::Exit { .. });
        let tunnel =
            Arc::new(Tunnel { side, host, path, bytes: Counter::default(), close: CancellationToken::new() });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open().tunnels.insert(number, Arc::clone(&tunnel));
        if is_exit {
            self.first_exit.notify_one();
        }
        Listed { table: self, number, tunnel, _seat: seat }
    }

    /// All open tunnels.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.open().tunnels.values().map(Arc::clone).collect()
    }

    /// Bytes transferred in both directions by all tunnels so far, open and ended.
    pub fn bytes(&self) -> u64 {
        let open = self.open();
        open.ended + open.tunnels.values().map(|tunnel| tunnel.bytes.get()).sum::<u64>()
    }

    /// Waits until an exit has opened since the last call. For one task.
    pub async fn some_exit(&self) {
        self.first_exit.notified().await;
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.table.used.fetch_sub(1, Ordering::Relaxed);
        let Some((member, network)) = self.user else { return };
        let mut shares = self.table.shares.lock().unwrap_or_else(PoisonError::into_inner);
        release(&mut shares.members, &member);
        if let Some(network) = network {
            release(&mut shares.networks, &network);
        }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut open = self.table.open();
        open.tunnels.remove(&self.number);
        open.ended += self.tunnel.bytes.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tunnels_is_limited_and_those_that_end_make_room() {
        let table = Table::new(1_024);
        assert_eq!(table.limit(), 128);
        let mut seats: Vec<_> = std::iter::from_fn(|| table.seat()).collect();
        assert_eq!(seats.len(), 128);
        let side = Side::Exit { from: NodeId::MIN, name: "bar".into(), service: false, registration: 1 };
        let listed = seats.pop().map(|seat| table.add(seat, side, "far".into(), "direct"));
        assert_eq!(table.all().len(), 1);
        assert!(table.seat().is_none());
        listed.iter().for_each(|listed| listed.tunnel.bytes.add_many(7));
        assert_eq!(table.bytes(), 7);
        drop(listed);
        assert!(table.all().is_empty());
        assert_eq!(table.bytes(), 7, "the total never decreases");
        assert!(table.seat().is_some());
    }

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    /// As many permits as there are for this member at this address, and why there are no more.
    fn take<'a>(table: &'a Table, member: u8, address: Option<IpAddr>) -> (Vec<Seat<'a>>, NoSeat) {
        let mut seats = Vec::new();
        loop {
            match table.seat_for(id(member), address) {
                Ok(seat) => seats.push(seat),
                Err(error) => return (seats, error),
            }
        }
    }

    #[test]
    fn one_member_gets_its_share_whatever_its_addresses_and_others_get_theirs() {
        let table = Table::new(1_024);
        assert_eq!(table.share(), 32);
        let (mut first, error) = take(&table, 1, ip("10.0.0.1"));
        assert_eq!((first.len(), error), (32, NoSeat::Member(32)));
        assert_eq!(take(&table, 1, ip("10.0.0.2")).1, NoSeat::Member(32), "at another address");
        assert_eq!(take(&table, 1, None).1, NoSeat::Member(32), "through a relay");
        let (second, _) = take(&table, 2, ip("10.0.0.3"));
        assert_eq!(second.len(), 32);
        first.truncate(30);
        assert_eq!(take(&table, 1, ip("10.0.0.2")).0.len(), 2, "those that end make room");
        drop((first, second));
        let shares = table.shares.lock().expect("alone");
        assert!(shares.members.is_empty() && shares.networks.is_empty(), "{shares:?}");
    }

    #[test]
    fn many_members_at_one_address_have_one_share() {
        let table = Table::new(1_024);
        let (_first, _) = take(&table, 1, ip("fd00::1"));
        assert_eq!(take(&table, 2, ip("fd00::2")).1, NoSeat::Address(32), "in the same /64");
        assert_eq!(take(&table, 2, ip("fd00:0:0:1::2")).0.len(), 32, "in another one");
        // Those who are rejected do not use up the limit.
        let (_second, _) = take(&table, 3, ip("10.0.0.1"));
        let (_third, _) = take(&table, 4, ip("10.0.0.2"));
        let (fourth, error) = take(&table, 5, ip("10.0.0.3"));
        assert_eq!((fourth.len(), error), (32, NoSeat::Full));
        assert!(table.seat().is_none());
    }
}
