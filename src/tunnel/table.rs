//! The open tunnels of this host, both entries and exits, and their limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_epmd::counters::Counter;
use pmd_protocol::peer::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::directory::Target;
use crate::directory::cluster::Registered;

/// Descriptors per tunnel: one connection to a program and one to another daemon.
const DESCRIPTORS: usize = 2;
/// Tunnels may use one out of this many descriptors.
const SHARE: usize = 4;
/// Minimum value of the limit.
const LEAST: usize = 16;

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

/// The table of open tunnels.
#[derive(Debug)]
pub struct Table {
    limit: usize,
    used: AtomicUsize,
    next: AtomicU64,
    open: Mutex<Open>,
    /// Notified when an exit opens.
    first_exit: Notify,
}

/// A permit for one tunnel, returned on drop.
#[derive(Debug)]
pub struct Seat<'a>(&'a Table);

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
            next: AtomicU64::new(0),
            open: Mutex::default(),
            first_exit: Notify::new(),
        }
    }

    /// The maximum number of open tunnels.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns a permit for one more tunnel, unless the limit is reached.
    pub fn seat(&self) -> Option<Seat<'_>> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self);
        (used < self.limit).then_some(seat)
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
        self.0.used.fetch_sub(1, Ordering::Relaxed);
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
}
