//! The tunnels that are open, on both sides, and how many there may be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_epmd::counters::Counter;
use pmd_protocol::peer::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::directory::Target;
use crate::directory::cluster::Registered;

/// Descriptors of a tunnel: one connection to a program, one to another daemon.
const DESCRIPTORS: usize = 2;
/// The part of all descriptors that tunnels may use.
const SHARE: usize = 4;
/// Tunnels that there may be in any case.
const LEAST: usize = 16;

/// Which end of a tunnel is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A program here has connected; the tunnel leads to this life of what is registered there.
    Entry(Target, Registered),
    /// It leads to this registration on this host, and comes from this daemon.
    Exit {
        /// Where it comes from.
        from: NodeId,
        /// What it leads to.
        name: Box<str>,
        /// Whether that is a service.
        service: bool,
        /// The number of its registration.
        registration: u64,
    },
}

/// A tunnel that is open.
#[derive(Debug)]
pub struct Tunnel {
    /// Which end of it is here.
    pub side: Side,
    /// The host of the other end.
    pub host: String,
    /// How it gets there.
    pub path: &'static str,
    /// Bytes that have gone through it, both ways.
    pub bytes: Counter,
    close: CancellationToken,
}

impl Tunnel {
    /// Ends it.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// Waits until somebody wants it to end.
    pub async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// Those that are open, and what went through those that were.
#[derive(Debug, Default)]
struct Open {
    tunnels: HashMap<u64, Arc<Tunnel>>,
    /// Bytes. In one place with the tunnels, so that the sum of both never steps back.
    ended: u64,
}

/// All tunnels.
#[derive(Debug)]
pub struct Table {
    limit: usize,
    used: AtomicUsize,
    next: AtomicU64,
    open: Mutex<Open>,
    /// Told when the first exit opens.
    first_exit: Notify,
}

/// The right to one tunnel.
#[derive(Debug)]
pub struct Seat<'a>(&'a Table);

/// A tunnel in the table, as long as it lives.
#[derive(Debug)]
pub struct Listed<'a> {
    table: &'a Table,
    number: u64,
    /// The tunnel.
    pub tunnel: Arc<Tunnel>,
    _seat: Seat<'a>,
}

impl Table {
    /// For a process that may open `descriptors` descriptors.
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

    /// How many tunnels there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The right to one more, if there is room.
    pub fn seat(&self) -> Option<Seat<'_>> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self);
        (used < self.limit).then_some(seat)
    }

    /// A tunnel is open.
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

    /// All that are open.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.open().tunnels.values().map(Arc::clone).collect()
    }

    /// What has gone through all that are and were open, both ways, in bytes.
    pub fn bytes(&self) -> u64 {
        let open = self.open();
        open.ended + open.tunnels.values().map(|tunnel| tunnel.bytes.get()).sum::<u64>()
    }

    /// Waits until there may be an exit.
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
    fn there_are_only_so_many_and_those_that_end_make_room() {
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
        assert_eq!(table.bytes(), 7, "a total never steps back");
        assert!(table.seat().is_some());
    }
}
