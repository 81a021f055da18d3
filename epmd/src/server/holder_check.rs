//! Checks whether the holder of a name is dead although its connection is still open.
//!
//! A duplicate registration is refused, as by stock, unless the holder is provably gone. The shard itself finds the
//! cheap proof (the connection has ended). This module looks for the expensive ones, for which it queries the kernel
//! and may read `/proc` and try a connection, so it runs on its own thread:
//!
//! - no process has the other end of the connection open: its last packet is in flight, or was dropped by a
//!   firewall; or
//! - *every* process that has it open is stopped or a zombie, and nothing listens on the distribution port, over TCP or (as
//!   distribution over QUIC does) over UDP. Either
//!   alone is normal: a stopped node under a debugger still listens, and a test program may register a port it does
//!   not listen on.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{SocketAddrAny, getpeername, getsockname};

use super::connections::Token;
use super::inbox::Inbox;
use super::shared::{Host, Watched};
use crate::kernel::processes;
use crate::kernel::sockets::{self, Socket};
use crate::names::Registration;
use crate::names::holder::socket_of;
use crate::planted::panic_if_planted;

/// The number of checks that may be queued. Beyond that, duplicates are refused at once, so that a flood of them costs
/// neither memory nor more than this one thread.
const QUEUE: usize = 64;
/// The timeout for a connection to the distribution port; on this host it succeeds at once or never.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// A request for a check.
#[derive(Debug)]
pub(super) struct Check {
    /// The registration whose holder is checked.
    pub suspect: Arc<Registration>,
    /// The connection that waits for the result.
    pub asker: Token,
    /// Where the result goes.
    pub inbox: Arc<Inbox>,
}

/// Passes checks to their thread.
#[derive(Debug, Clone)]
pub(super) struct HolderCheck(SyncSender<Check>);

impl HolderCheck {
    /// Starts the thread, which ends when the last `HolderCheck` is dropped.
    pub(super) fn start(host: Arc<dyn Host>) -> io::Result<(HolderCheck, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("holder-check".into());
        let running = thread.spawn(move || {
            let watched = Watched::new(host, "holder-check");
            answer_all(&receiver);
            watched.done();
        })?;
        Ok((HolderCheck(sender), running))
    }

    /// Requests a check; returns it if too many are queued.
    pub(super) fn ask(&self, check: Check) -> Result<(), Check> {
        self.0.try_send(check).map_err(|refused| match refused {
            TrySendError::Full(check) | TrySendError::Disconnected(check) => check,
        })
    }
}

fn answer_all(checks: &Receiver<Check>) {
    while let Ok(check) = checks.recv() {
        panic_if_planted("holder-check");
        let dead = is_dead(&check.suspect);
        check.inbox.deliver(check.asker, dead);
    }
}

/// Whether the holder is provably dead although its connection is open.
fn is_dead(suspect: &Registration) -> bool {
    let Some(socket) = socket_of(suspect) else { return false };
    let own = getsockname(socket).ok();
    let peer = getpeername(socket).ok().flatten();
    let as_internet = |address: Option<SocketAddrAny>| SocketAddr::try_from(address?).ok();
    let (Some(own), Some(peer)) = (as_internet(own), as_internet(peer)) else { return false };
    let Some(end) = end_of_holder(peer, own) else { return false };
    let End::Open { inode } = end else { return true };
    // Ordered from cheapest to most expensive, and nothing that the node could notice happens before it is known to be
    // frozen.
    nobody_listens(suspect.port, peer) && owners_are_frozen(inode) && port_refuses(suspect.port, peer)
}

/// The holder's end of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No process has it open.
    Closed,
    /// It is open as the socket of this inode.
    Open {
        /// Identifies the socket among a process's descriptors.
        inode: u64,
    },
}

/// The socket at `local` that is connected to `remote`; `None` if the kernel does not show it.
fn end_of_holder(local: SocketAddr, remote: SocketAddr) -> Option<End> {
    // If the kernel does not even show this process's own end, the socket was inherited from another network namespace,
    // and the answer proves nothing.
    sockets::connection(remote, local).ok()??;
    match sockets::connection(local, remote).ok()? {
        Some(socket) if socket.inode != 0 => Some(End::Open { inode: socket.inode }),
        _ => Some(End::Closed),
    }
}

/// Whether the kernel shows no socket on `port` that a connection to the node could reach, over TCP or UDP. A node that
/// listens needs no further checks.
fn nobody_listens(port: u16, peer: SocketAddr) -> bool {
    let reachable = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback() || ip == peer.ip();
    let none = |found: io::Result<Vec<Socket>>| {
        found.is_ok_and(|found| !found.iter().any(|socket| reachable(socket.local.ip())))
    };
    none(sockets::listeners(port)) && none(sockets::receivers(port))
}

fn port_refuses(port: u16, peer: SocketAddr) -> bool {
    let refuses = |address: SocketAddr| {
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    // A node may listen on only one address family, regardless of which one it registered over.
    refuses(SocketAddr::new(peer.ip(), port)) && refuses(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether no running process has the socket open.
fn owners_are_frozen(inode: u64) -> bool {
    let owners = processes::holders(&BTreeSet::from([inode]));
    // No owner at all means that a process that we may not inspect has it open, which proves nothing.
    !owners.is_empty() && owners.into_iter().all(processes::is_frozen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        (client, listener.accept().expect("a connection").0)
    }

    #[test]
    fn a_running_holder_is_not_frozen() {
        let (client, _server) = connection();
        let (local, remote) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        let Some(End::Open { inode }) = end_of_holder(local, remote) else { panic!("it is open") };
        assert!(!owners_are_frozen(inode));
    }

    #[test]
    fn an_end_that_nobody_has_open_is_closed() {
        let (client, _server) = connection();
        let (local, remote) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        // The socket now waits for the other end, which is still open.
        drop(client);
        assert_eq!(end_of_holder(local, remote), Some(End::Closed));
    }

    #[test]
    fn a_listener_is_known_without_a_connection_to_it() {
        let peer = ([127, 0, 0, 1], 1).into();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = std::net::TcpListener::bind(address).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            assert!(!nobody_listens(port, peer), "{address}");
            drop(listener);
            assert!(nobody_listens(port, peer), "{address}");
        }
    }

    #[test]
    fn a_udp_port_is_known_too() {
        let peer = ([127, 0, 0, 1], 1).into();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let socket = std::net::UdpSocket::bind(address).expect("a port");
            let port = socket.local_addr().expect("bound").port();
            assert!(!nobody_listens(port, peer), "{address}");
            drop(socket);
            assert!(nobody_listens(port, peer), "{address}");
        }
    }

    #[test]
    fn the_end_of_a_connection_of_another_namespace_proves_nothing() {
        let nowhere = ([127, 1, 2, 3], 9).into();
        assert_eq!(end_of_holder(nowhere, nowhere), None);
    }
}
