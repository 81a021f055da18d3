//! Is the holder of a name, whose connection still stands, dead all the same?
//!
//! A duplicate registration is refused, as stock does, unless the holder is provably gone. The cheap proof (its
//! connection has ended) is found by the shard itself. This module looks for the other one, for which it reads
//! `/proc` and tries a connection, so it does that on a thread of its own:
//!
//! *every* process that has the other end of the connection open is stopped or a zombie (or there is none), and
//! nobody listens on the distribution port. Either alone is normal: a stopped node under a debugger still
//! listens, and a test program may register a port it does not listen on.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::net::{SocketAddrAny, getpeername, getsockname};

use super::holder::{Connection, connection};
use super::shard::Inbox;
use super::table::Token;
use crate::registry::names::Registration;

/// Checks that may wait at a time. Beyond that duplicates are refused at once, so that a flood of them costs
/// neither memory nor more than this one thread.
const QUEUE: usize = 64;
/// How long an answer of the distribution port is waited for; on this host it comes at once or never.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// One question.
#[derive(Debug)]
pub struct Question {
    /// The registration whose holder is in doubt.
    pub suspect: Arc<Registration<Connection>>,
    /// The connection that waits for the answer.
    pub asker: Token,
    /// Where the answer goes.
    pub inbox: Arc<Inbox>,
}

/// Hands questions to the checking thread.
#[derive(Debug, Clone)]
pub struct HolderCheck(SyncSender<Question>);

impl HolderCheck {
    /// Starts the thread; it ends with the last `HolderCheck`.
    pub fn start() -> std::io::Result<HolderCheck> {
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::Builder::new().name("holder-check".into()).spawn(move || answer_all(&receiver))?;
        Ok(HolderCheck(sender))
    }

    /// Asks; gives the question back if too many wait.
    pub fn ask(&self, question: Question) -> Result<(), Question> {
        self.0.try_send(question).map_err(|refused| match refused {
            TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
        })
    }
}

fn answer_all(questions: &Receiver<Question>) {
    while let Ok(question) = questions.recv() {
        let dead = is_dead(&question.suspect);
        question.inbox.deliver(question.asker, dead);
    }
}

/// Whether the holder is provably dead although its connection stands.
fn is_dead(suspect: &Registration<Connection>) -> bool {
    let Some(connection) = connection(suspect) else { return false };
    let own = getsockname(connection).ok();
    let peer = getpeername(connection).ok().flatten();
    let as_internet = |address: Option<SocketAddrAny>| SocketAddr::try_from(address?).ok();
    let (Some(own), Some(peer)) = (as_internet(own), as_internet(peer)) else { return false };
    // The order matters: the look at the processes disturbs nobody, a connection to the node might.
    owners_are_frozen(peer, own) && port_refuses(suspect.port, peer)
}

fn port_refuses(port: u16, peer: SocketAddr) -> bool {
    let refuses = |address: SocketAddr| {
        TcpStream::connect_timeout(&address, CONNECT_PATIENCE)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    // A node may listen on one address family only, whichever it used to register.
    refuses(SocketAddr::new(peer.ip(), port)) && refuses(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether no running process has the socket at `local`, connected to `remote`, open.
fn owners_are_frozen(local: SocketAddr, remote: SocketAddr) -> bool {
    // A table that does not even show this process's own end is that of another network namespace (the socket
    // was inherited from it), and proves nothing.
    if look_up(remote, local).is_none() {
        return false;
    }
    match look_up(local, remote) {
        // Without an entry there is no socket any more: a firewall has swallowed its last words.
        None => true,
        // Inode 0 means that no process has it open.
        Some(0) => true,
        Some(inode) => match owners(inode) {
            // Somebody has it open whom this process may not see: no proof.
            None => false,
            Some(pids) => pids.iter().all(|pid| is_frozen(*pid)),
        },
    }
}

/// The inode of a socket. An IPv4 client of a dual-stack socket is listed among the IPv4 ones, the socket itself
/// among the IPv6 ones.
fn look_up(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let forms = [(local, remote), (canonical(local), canonical(remote))];
    forms.into_iter().find_map(|(local, remote)| {
        let table = if local.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
        find_inode(&fs::read_to_string(table).ok()?, local, remote)
    })
}

/// The inode of the socket at `local` connected to `remote` in the text of `/proc/net/tcp` or `tcp6`.
fn find_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (in_proc_form(local), in_proc_form(remote));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let ends = (fields.nth(1)?, fields.next()?);
        if ends != (local.as_str(), remote.as_str()) {
            return None;
        }
        // Fields after the two ends: state, queues, timer, retransmits, uid, timeout, inode.
        fields.nth(6)?.parse().ok()
    })
}

/// An address as the kernel prints it there: 32-bit words of the address in host order, then the port.
fn in_proc_form(address: SocketAddr) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut word = |bytes: &[u8]| {
        if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:08X}", u32::from_ne_bytes(bytes));
        }
    };
    match address {
        SocketAddr::V4(v4) => word(&v4.ip().octets()),
        SocketAddr::V6(v6) => v6.ip().octets().chunks(4).for_each(word),
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

/// The processes that have the socket open; none if there is at least one whose descriptors are hidden and
/// nobody was found.
fn owners(inode: u64) -> Option<HashSet<u32>> {
    let wanted = format!("socket:[{inode}]");
    let mut found = HashSet::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        });
        if has {
            found.insert(pid);
        }
    }
    if found.is_empty() { None } else { Some(found) }
}

/// Whether a process is stopped, or a zombie.
fn is_frozen(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command's name, which is in parentheses and may itself contain some.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't' | 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_socket_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1111 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1\n\
            \x20  1: 0100007F:C001 0100007F:1111 01 00000000:00000000 00:00000000 00000000     0        0 7002 1\n";
        if cfg!(target_endian = "little") {
            let (local, remote) = (([127, 0, 0, 1], 0xC001).into(), ([127, 0, 0, 1], 0x1111).into());
            assert_eq!(find_inode(table, local, remote), Some(7002));
            assert_eq!(find_inode(table, remote, local), None);
        }
    }

    #[test]
    fn finds_the_owner_of_a_real_socket_and_sees_it_run() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let local = client.local_addr().expect("bound");
        let remote = client.peer_addr().expect("connected");
        let inode = look_up(local, remote).expect("the socket is in the table");
        assert_eq!(owners(inode), Some(HashSet::from([std::process::id()])));
        assert!(!owners_are_frozen(local, remote));
    }
}
