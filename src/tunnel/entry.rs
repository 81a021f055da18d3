//! Listening sockets that lead to nodes and services on other hosts, opened on the first lookup.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connect;
use super::direct;
use super::node_addresses::NodeAddresses;
use super::port_owner::is_covered;
use super::reachability::Candidate;
use super::rules;
use super::state::Tunnels;
use crate::base::first_choice::first_choice;
use crate::base::permit::Permit;
use crate::config::ranges::PortRange;
use crate::config::rules::Mode;
use crate::directory::cluster::Registered;
use crate::directory::dial_question::Family;
use crate::directory::{Entrances, Target};
use crate::link::dial_targets::DialTargets;

/// Maximum number of entries, each of which uses a descriptor. The least recently looked up one is closed for a new
/// one.
const MAX_ENTRIES: usize = 1024;
/// Backlog of the listening sockets.
const BACKLOG: i32 = 128;
/// Pause after a failed accept.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Maximum number of ports that are tried for an entry.
const PORTS_TRIED: usize = 64;

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

/// The entrances of this host: the aliases and the entries on them, and the addresses of nodes.
#[derive(Debug)]
pub struct TunnelEntrances {
    tunnels: Arc<Tunnels>,
    entries: Mutex<Entries>,
    /// The addresses of nodes; with each, the listener on it, if the daemon's own does not cover it.
    nodes: Mutex<NodeAddresses<Option<DropGuard>>>,
    /// Whether any node has an address. Separate from them because the hot path reads it.
    any_node: AtomicBool,
}

impl TunnelEntrances {
    /// Creates entrances without entries.
    #[must_use]
    pub(super) fn new(tunnels: Arc<Tunnels>) -> TunnelEntrances {
        let nodes =
            Mutex::new(NodeAddresses::new(tunnels.settings().node_range, tunnels.listens_everywhere()));
        TunnelEntrances { tunnels, entries: Mutex::default(), nodes, any_node: AtomicBool::new(false) }
    }

    /// The tunnels that connections to entries open.
    pub(super) fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// The number of listening sockets besides the daemon's own: open entries, and addresses of nodes that the daemon's own
    /// sockets do not cover.
    pub fn count(&self) -> usize {
        self.entries().0.len() + self.nodes().kept().flatten().count()
    }

    /// Whether any node on another host has an address. If not, the local address of a connection does not matter.
    #[must_use]
    pub fn any_node(&self) -> bool {
        self.any_node.load(Ordering::Relaxed)
    }

    /// Carries a connection to the address of a node, from which `head` was already read, or closes it if no node has the
    /// address any more.
    pub fn carry(&self, address: IpAddr, socket: OwnedFd, head: Vec<u8>) {
        let IpAddr::V4(address) = address else { return };
        let target = self.nodes().behind(address).cloned();
        let runtime = self.tunnels.parts.dialer.runtime();
        let _context = runtime.enter();
        let Ok(socket) = TcpStream::from_std(socket.into()) else { return };
        if let Some(target) = target {
            connect_now(&self.tunnels, target, socket, head);
        }
    }

    fn nodes(&self) -> MutexGuard<'_, NodeAddresses<Option<DropGuard>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on the address of a node, unless the daemon's own sockets do.
    fn listen_for(&self, address: Ipv4Addr, target: &Target) -> io::Result<Option<DropGuard>> {
        let port = self.tunnels.parts.ports.1;
        if self.tunnels.listens_everywhere() {
            return Ok(None);
        }
        let address = SocketAddr::from((address, port));
        let listener = match listen_at(address) {
            Ok(listener) => listener,
            // A supervisor may have passed a socket for both families.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_covered(address) => return Ok(None),
            Err(error) => return Err(error),
        };
        let permit = self.tunnels.permit().ok_or(io::ErrorKind::QuotaExceeded)?;
        let stop = CancellationToken::new();
        let serving = serve(Arc::clone(&self.tunnels), listener, target.clone(), None, stop.clone(), permit);
        self.tunnels.parts.dialer.runtime().spawn(serving);
        Ok(Some(stop.drop_guard()))
    }

    /// The address at which a program on this host connects to `target`: an entry on the alias of its host, or the
    /// host's own address if that host is reached without tunnels.
    pub fn address_of(&self, target: &Target) -> Option<SocketAddr> {
        let directory = &self.tunnels.parts.directory;
        let registered = self.tunnels.registered(target)?;
        let host = directory.host_of(&target.origin)?;
        if !self.tunnels_to(&host) {
            return self.direct(target, registered);
        }
        let alias = IpAddr::V4(self.tunnels.alias_of(&host)?);
        let port = self.entry(alias, target.clone(), registered)?;
        Some((alias, port).into())
    }

    /// The address at which a host that is reached without tunnels is reached.
    fn direct(&self, target: &Target, registered: Registered) -> Option<SocketAddr> {
        let own = self.tunnels.parts.identity.identity().addresses;
        let advertised = self.tunnels.parts.directory.addresses_of(&target.origin);
        let targets = DialTargets::of_member(&own, &advertised);
        let address = targets.addresses().first().copied()?;
        Some((address.ip(), registered.port).into())
    }

    /// The address at which a node of a host with `tunnel = "when-needed"` needs no tunnel.
    fn without_tunnel(&self, target: &Target, registered: Registered, family: Family) -> Option<SocketAddr> {
        let candidate = Candidate::of(target, registered.port);
        let (direct, due) = self.tunnels.reachable.ask(&candidate);
        if due {
            direct::check_asked(&self.tunnels, candidate);
        }
        let is_usable =
            |ip: &IpAddr| target.pinned.is_none_or(|pinned| pinned == *ip) && family.extra(*ip).is_some();
        direct.into_iter().find(is_usable).map(|ip| (ip, registered.port).into())
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
        let own = self.tunnels.parts.directory.own_alias();
        matches!(address, IpAddr::V4(address) if self.tunnels.settings().range.contains(address) && address != own)
    }

    fn host_behind(&self, alias: IpAddr) -> Option<String> {
        self.tunnels.host_behind(alias)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let own = self.tunnels.parts.identity.identity().addresses;
        own.iter().any(|own| own.ip().to_canonical() == address)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.tunnels.settings().node_range.contains(address))
    }

    fn to_dial(&self, target: Target, registered: Registered, family: Family) -> Option<SocketAddr> {
        match rules::mode(&self.tunnels.policy(), &target.host) {
            Mode::Never => return self.direct(&target, registered),
            Mode::WhenNeeded => {
                if let Some(address) = self.without_tunnel(&target, registered, family) {
                    return Some(address);
                }
            }
            Mode::Always => {}
        }
        let listen = |address| self.listen_for(address, &target);
        match self.nodes().assign(&target, listen) {
            Ok(address) => {
                self.any_node.store(true, Ordering::Relaxed);
                Some((address, self.tunnels.parts.ports.1).into())
            }
            Err(error) => {
                self.tunnels.parts.counters.tunnels_full.add();
                self.tunnels
                    .complain(|| format!("cannot listen for connections to {:?}: {error}", target.name));
                None
            }
        }
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
        let (listener, port) = match listen_on(address, self.tunnels.settings().entry_ports, &key.1.name) {
            Ok(listening) => listening,
            Err(error) => {
                counters.tunnels_full.add();
                self.tunnels.complain(|| format!("cannot listen on {address} for {:?}: {error}", key.1.name));
                return None;
            }
        };
        let stop = CancellationToken::new();
        let serving =
            serve(Arc::clone(&self.tunnels), listener, key.1.clone(), Some(registered), stop.clone(), permit);
        self.tunnels.parts.dialer.runtime().spawn(serving);
        entries.0.insert(key, Entry { port, registered, asked: Instant::now(), stop });
        Some(port)
    }
}

/// Accepts connections, and opens a tunnel to the registration, or to the current one, for each.
async fn serve(
    tunnels: Arc<Tunnels>,
    listener: StdListener,
    target: Target,
    registered: Option<Registered>,
    stop: CancellationToken,
    _permit: Permit,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, registered) {
            (Ok((socket, _)), None) => connect_now(&tunnels, target.clone(), socket, Vec::new()),
            (Ok((socket, _)), Some(registered)) => {
                let tunnels = Arc::clone(&tunnels);
                tokio::spawn(connect::connect(tunnels, target.clone(), registered, socket, Vec::new()));
            }
            (Err(error), _) => {
                tunnels.parts.epmd_counters.accept_errors.add();
                tunnels.complain(|| format!("cannot accept a connection to {:?}: {error}", target.name));
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Opens a tunnel to the current registration of `target`, or closes the connection if there is none.
fn connect_now(tunnels: &Arc<Tunnels>, target: Target, socket: TcpStream, head: Vec<u8>) {
    if let Some(registered) = tunnels.registered(&target) {
        tokio::spawn(connect::connect(Arc::clone(tunnels), target, registered, socket, head));
    }
}

/// Listens on `address`, on a port on which no program on this host listens. The search begins at one that depends on the
/// name, so that most names have the same port again.
///
/// A port is taken only if it is free at all addresses: a node of this host that listens on all addresses could not start
/// otherwise.
fn listen_on(address: IpAddr, ports: PortRange, name: &str) -> io::Result<(StdListener, u16)> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let is_taken = |port| {
        everywhere.iter().any(|all| {
            matches!(bind_at((*all, port).into()), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
        })
    };
    let start = first_choice(name);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports.starting_at(start).take(PORTS_TRIED) {
        if is_taken(port) {
            continue;
        }
        match listen_at(SocketAddr::new(address, port)) {
            Ok(listener) => return Ok((listener, port)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A connection of an earlier entry may be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn listen_at(address: SocketAddr) -> io::Result<StdListener> {
    let socket = bind_at(address)?;
    listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_entry_gets_a_port_that_no_program_on_this_host_listens_on() {
        let ports: PortRange = "29100-29102".parse().expect("a range");
        let address: IpAddr = "127.77.255.1".parse().expect("an address");
        let node = listen_at("0.0.0.0:29101".parse().expect("an address")).expect("a free port");
        let open = || listen_on(address, ports, "bar");
        let (_first, one) = open().expect("a port");
        let (_second, two) = open().expect("another port");
        assert_eq!(BTreeSet::from([one, two]), BTreeSet::from([29_100, 29_102]));
        assert_eq!(open().map_err(|error| error.kind()).map(drop), Err(io::ErrorKind::AddrInUse));
        drop(node);
        assert_eq!(open().expect("the node is gone").1, 29_101);
    }
}
