//! Is the holder of a name, whose connection still stands, dead all the same?
//!
//! A duplicate registration is refused, as stock does, unless the holder is provably gone. The cheap proof (its
//! connection has ended) is found by the shard itself. This module looks for the expensive one, for which it asks the
//! kernel, and may read `/proc` and try a connection, so it runs on a thread of its own:
//!
//! - no process has the other end of the connection open: its last packet is on the way, or was swallowed by a
//!   firewall; or
//! - *every* process that has it open is stopped or a zombie, and nobody listens on the distribution port. Either
//!   alone is normal: a stopped node under a debugger still listens, and a test program may register a port it does
//!   not listen on.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{SocketAddrAny, getpeername, getsockname};

use super::connections::Token;
use super::inbox::Inbox;
use super::shared::{Host, Watched};
use crate::kernel::{processes, sockets};
use crate::names::Registration;
use crate::names::holder::socket_of;
use crate::planted::panic_if_planted;

/// Checks that may wait at a time. Beyond that duplicates are refused at once, so that a flood of them costs
/// neither memory nor more than this one thread.
const QUEUE: usize = 64;
/// How long an answer of the distribution port is waited for; on this host it comes at once or never.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// A check that is asked for.
#[derive(Debug)]
pub(super) struct Check {
    /// The registration whose holder is in doubt.
    pub suspect: Arc<Registration>,
    /// The connection that waits for the result.
    pub asker: Token,
    /// Where the result goes.
    pub inbox: Arc<Inbox>,
}

/// Hands checks to their thread.
#[derive(Debug, Clone)]
pub(super) struct HolderCheck(SyncSender<Check>);

impl HolderCheck {
    /// Starts the thread; it ends with the last `HolderCheck`.
    pub(super) fn start(host: Arc<dyn Host>) -> std::io::Result<(HolderCheck, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("holder-check".into());
        let running = thread.spawn(move || {
            let watched = Watched::new(host, "holder-check");
            answer_all(&receiver);
            watched.done();
        })?;
        Ok((HolderCheck(sender), running))
    }

    /// Asks for a check; gives it back if too many wait.
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

/// Whether the holder is provably dead although its connection stands.
fn is_dead(suspect: &Registration) -> bool {
    let Some(socket) = socket_of(suspect) else { return false };
    let own = getsockname(socket).ok();
    let peer = getpeername(socket).ok().flatten();
    let as_internet = |address: Option<SocketAddrAny>| SocketAddr::try_from(address?).ok();
    let (Some(own), Some(peer)) = (as_internet(own), as_internet(peer)) else { return false };
    let Some(end) = end_of_holder(peer, own) else { return false };
    let End::Open { inode } = end else { return true };
    // From the cheapest to the most expensive, and nothing that the node could notice before it is known to be frozen.
    nobody_listens(suspect.port, peer) && owners_are_frozen(inode) && port_refuses(suspect.port, peer)
}

/// The holder's end of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No process has it open.
    Closed,
    /// It is open as the socket of this inode.
    Open {
        /// Names it among a process's descriptors.
        inode: u64,
    },
}

/// The socket at `local` that is connected to `remote`; none if the kernel does not tell.
fn end_of_holder(local: SocketAddr, remote: SocketAddr) -> Option<End> {
    // A kernel that does not even show this process's own end tells of another network namespace (the socket was
    // inherited from it), and proves nothing.
    sockets::connection(remote, local).ok()??;
    match sockets::connection(local, remote).ok()? {
        Some(socket) if socket.inode != 0 => Some(End::Open { inode: socket.inode }),
        _ => Some(End::Closed),
    }
}

/// Whether the kernel knows no listener at `port` that a connection to the node could reach: a node that listens,
/// as nodes do, is not worth a closer look.
fn nobody_listens(port: u16, peer: SocketAddr) -> bool {
    let reachable = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback() || ip == peer.ip();
    sockets::listeners(port)
        .is_ok_and(|listeners| !listeners.iter().any(|listener| reachable(listener.local.ip())))
}

fn port_refuses(port: u16, peer: SocketAddr) -> bool {
    let refuses = |address: SocketAddr| {
        TcpStream::connect_timeout(&address, CONNECT_PATIENCE)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    // A node may listen on one address family only, whichever it used to register.
    refuses(SocketAddr::new(peer.ip(), port)) && refuses(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether no running process has the socket open.
fn owners_are_frozen(inode: u64) -> bool {
    let owners = processes::holders(&BTreeSet::from([inode]));
    // None at all means that somebody has it open whom this process may not see, which proves nothing.
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
        // It waits for the other end, which is still open.
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
    fn the_end_of_a_connection_of_another_namespace_proves_nothing() {
        let nowhere = ([127, 1, 2, 3], 9).into();
        assert_eq!(end_of_holder(nowhere, nowhere), None);
    }
}
