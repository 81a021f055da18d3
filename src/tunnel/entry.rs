//! Listening sockets that lead to nodes and services on other hosts, opened on the first lookup.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connect;
use super::rules;
use super::state::Tunnels;
use crate::base::permit::Permit;
use crate::config::rules::Mode;
use crate::directory::cluster::Registered;
use crate::directory::{Entrances, Target};
use crate::link::dial_targets::DialTargets;

/// Maximum number of entries, each of which uses a descriptor. The least recently looked up one is closed for a new
/// one.
const MAX_ENTRIES: usize = 1024;
/// Backlog of the listening sockets.
const BACKLOG: i32 = 128;
/// Pause after a failed accept.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// The ephemeral ports of Linux by default (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

#[derive(Debug)]
struct Entry {
    port: u16,
    registered: Registered,
    asked: Instant,
    stop: CancellationToken,
}

/// The entries, by listening address and target.
#[derive(Debug, Default)]
struct Entries(BTreeMap<(IpAddr, Target), Entry>);

impl Entries {
    fn make_room(&mut self) {
        while self.0.len() >= MAX_ENTRIES {
            let oldest = self.0.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The entrances of this host: the aliases and the entries on them.
#[derive(Debug)]
pub struct TunnelEntrances {
    tunnels: Arc<Tunnels>,
    entries: Mutex<Entries>,
}

impl TunnelEntrances {
    /// Creates entrances without entries.
    #[must_use]
    pub(super) fn new(tunnels: Arc<Tunnels>) -> TunnelEntrances {
        TunnelEntrances { tunnels, entries: Mutex::default() }
    }

    /// The tunnels that connections to entries open.
    pub(super) fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// The number of open entries.
    pub fn count(&self) -> usize {
        self.entries().0.len()
    }

    /// The address at which a program on this host connects to `target`: an entry on the alias of its host, or the
    /// host's own address if that host is reached without tunnels.
    pub fn address_of(&self, target: &Target) -> Option<SocketAddr> {
        let directory = &self.tunnels.parts.directory;
        let registered = directory.registered(&target.origin, target.kind, &target.name)?;
        let host = directory.host_of(&target.origin)?;
        if !self.tunnels_to(&host) {
            let own = self.tunnels.parts.identity.identity().addresses;
            let targets = DialTargets::of_member(&own, &directory.addresses_of(&target.origin));
            let address = targets.addresses().first().copied()?;
            return Some((address.ip(), registered.port).into());
        }
        let alias = IpAddr::V4(self.tunnels.alias_of(&host)?);
        let port = self.entry(alias, target.clone(), registered)?;
        Some((alias, port).into())
    }

    /// Closes the entries whose registration is not current.
    pub(super) fn retain(&self, is_current: impl Fn(&Target, &Registered) -> bool) {
        self.entries().0.retain(|(_, target), entry| is_current(target, &entry.registered));
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entrances for TunnelEntrances {
    fn any(&self) -> bool {
        self.tunnels.any_alias()
    }

    fn is_alias(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.tunnels.settings().range.contains(address))
    }

    fn host_behind(&self, alias: IpAddr) -> Option<String> {
        self.tunnels.host_behind(alias)
    }

    fn tunnels_to(&self, host: &str) -> bool {
        rules::mode(&self.tunnels.policy(), host) != Mode::Never
    }

    fn entry(&self, address: IpAddr, target: Target, registered: Registered) -> Option<u16> {
        let counters = &self.tunnels.parts.counters;
        let mut entries = self.entries();
        let key = (address, target);
        if let Some(entry) = entries.0.get_mut(&key).filter(|entry| entry.registered == registered) {
            entry.asked = Instant::now();
            return Some(entry.port);
        }
        // The entry of an earlier registration is removed first, because the new one may get the same port.
        entries.0.remove(&key);
        entries.make_room();
        let Some(permit) = self.tunnels.permit() else {
            counters.tunnels_full.add();
            self.tunnels.complain(|| format!("no file descriptor left for a listener for {:?}", key.1.name));
            return None;
        };
        let (listener, port) = match listen_on(address, registered.port) {
            Ok(listening) => listening,
            Err(error) => {
                counters.tunnels_full.add();
                self.tunnels.complain(|| format!("cannot listen on {address} for {:?}: {error}", key.1.name));
                return None;
            }
        };
        let stop = CancellationToken::new();
        let serving =
            serve(Arc::clone(&self.tunnels), listener, key.1.clone(), registered, stop.clone(), permit);
        self.tunnels.parts.dialer.runtime().spawn(serving);
        entries.0.insert(key, Entry { port, registered, asked: Instant::now(), stop });
        Some(port)
    }
}

/// Accepts connections, and opens a tunnel for each.
async fn serve(
    tunnels: Arc<Tunnels>,
    listener: StdListener,
    target: Target,
    registered: Registered,
    stop: CancellationToken,
    _permit: Permit,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                tokio::spawn(connect::connect(Arc::clone(&tunnels), target.clone(), registered, socket));
            }
            Err(error) => {
                tunnels.parts.epmd_counters.accept_errors.add();
                tunnels.complain(|| format!("cannot accept a connection to {:?}: {error}", target.name));
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Listens on `address`, on the `wanted` port if it is ephemeral and free, and otherwise on a port that the kernel chooses.
///
/// A port outside the ephemeral range was configured, most likely on all hosts (such as RabbitMQ's 25672). An entry on
/// it would prevent the start of this host's own node, which listens on that port on all addresses.
fn listen_on(address: IpAddr, wanted: u16) -> io::Result<(StdListener, u16)> {
    if ephemeral().contains(&wanted)
        && let Ok(listener) = listen_at(SocketAddr::new(address, wanted))
    {
        return Ok((listener, wanted));
    }
    let listener = listen_at(SocketAddr::new(address, 0))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn listen_at(address: SocketAddr) -> io::Result<StdListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    // A connection of an earlier entry may be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

/// The ephemeral ports of this system.
fn ephemeral() -> RangeInclusive<u16> {
    static RANGE: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut words = text.split_ascii_whitespace();
        Some(words.next()?.parse().ok()?..=words.next()?.parse().ok()?)
    };
    RANGE.get_or_init(|| read().unwrap_or(EPHEMERAL)).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gets_the_wanted_port_if_it_is_free() {
        let address: IpAddr = "127.77.255.1".parse().expect("an address");
        let (first, port) = listen_on(address, 0).expect("a port");
        let (_second, other) = listen_on(address, port).expect("another port");
        assert_ne!(port, other);
        drop(first);
        let (_third, same) = listen_on(address, port).expect("it is free again");
        assert_eq!(same, port);
        let (_fourth, chosen) = listen_on(address, 25_672).expect("a port");
        assert_ne!(chosen, 25_672, "a local node may need it");
    }
}
