//! What a server is given: the directory it answers from, where other connections go, and how it behaves.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pmd_protocol::epmd::Alive2;
use rustix::net::getsockname;

use crate::counters::Counters;
use crate::descriptors::Descriptors;
use crate::latency::Latency;
use crate::names::NameRegistry;
use crate::reserve::Reserve;

/// A connection as a [`Directory`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The address of its other end; none if that is no internet address.
    pub peer: Option<SocketAddr>,
    /// The socket.
    socket: BorrowedFd<'a>,
}

impl<'a> Asker<'a> {
    /// The connection behind `socket`, from `peer`.
    #[must_use]
    pub fn new(socket: &'a OwnedFd, peer: Option<SocketAddr>) -> Asker<'a> {
        Asker { peer, socket: socket.as_fd() }
    }

    /// The address that it was made to. Costs a system call.
    #[must_use]
    pub fn own_address(&self) -> Option<IpAddr> {
        let own = getsockname(self.socket).ok()?;
        SocketAddr::try_from(own).ok().map(|own| own.ip())
    }

    /// Whether it comes from a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }
}

/// What lookups are answered from.
pub trait Directory: Debug + Send + Sync {
    /// Passes what is registered as `name` to `answer`; false if nothing is. Must not block.
    fn find(&self, asker: &Asker<'_>, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool;

    /// The whole answer to NAMES_REQ.
    fn names(&self, asker: &Asker<'_>) -> Arc<[u8]>;

    /// Whether lookups from another host are answered.
    fn may_ask(&self, peer: Option<SocketAddr>) -> bool;
}

/// The plainest directory: the nodes of this host, for everybody, as stock epmd has it.
impl Directory for NameRegistry {
    fn find(&self, _: &Asker<'_>, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> bool {
        NameRegistry::find(self, name, answer)
    }

    fn names(&self, _: &Asker<'_>) -> Arc<[u8]> {
        self.render_names()
    }

    fn may_ask(&self, _: Option<SocketAddr>) -> bool {
        true
    }
}

/// Connections on the EPMD port that speak something else.
pub trait Handoff: Debug + Send + Sync {
    /// Whether a connection that begins with `head` is not for EPMD.
    fn wants(&self, head: &[u8]) -> bool;

    /// Takes such a connection over, or closes it. Must not block.
    fn take(&self, socket: OwnedFd, peer: SocketAddr, head: &[u8]);
}

/// The program that a server runs in.
pub trait Host: Debug + Send + Sync {
    /// A KILL request was obeyed: the program is to end.
    fn killed(&self);

    /// One of the server's threads has ended without having been told to. It serves nobody any more, and holds its port.
    fn thread_ended(&self, thread: &str, reason: &str);
}

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that may serve the port.
    pub threads: usize,
    /// Whether KILL is obeyed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// Time for a connection to complete its request.
    pub packet_timeout: Duration,
    /// Stock's test aid: a pause after each accept.
    pub delay_accept: Duration,
    /// Stock's test aid: a pause before each write.
    pub delay_write: Duration,
}

impl Default for Options {
    /// Stock epmd's, on one thread.
    fn default() -> Options {
        Options {
            threads: 1,
            relaxed_command_check: false,
            packet_timeout: Duration::from_secs(60),
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
        }
    }
}

/// What the threads of a server share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The nodes of this host.
    pub names: Arc<NameRegistry>,
    /// What lookups are answered from: often the same.
    pub directory: Arc<dyn Directory>,
    /// Takes connections that are not EPMD.
    pub handoff: Option<Arc<dyn Handoff>>,
    /// The program around the server.
    pub host: Arc<dyn Host>,
    /// Counts requests and connections.
    pub counters: Arc<Counters>,
    /// Measures some of the requests.
    pub latency: Arc<Latency>,
    /// Shares out the process's descriptors.
    pub descriptors: Arc<Descriptors>,
    /// The descriptor to accept with when there is no other.
    pub reserve: Arc<Reserve>,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: fn() -> u64,
}

impl Shared {
    /// A server that answers from `names` and uses at most `descriptor_limit` descriptors; everything else as stock epmd has
    /// it.
    #[must_use]
    pub fn new(names: Arc<NameRegistry>, host: Arc<dyn Host>, descriptor_limit: usize) -> Shared {
        Shared {
            directory: Arc::clone(&names) as Arc<dyn Directory>,
            names,
            handoff: None,
            host,
            counters: Arc::default(),
            latency: Arc::default(),
            descriptors: Arc::new(Descriptors::new(descriptor_limit)),
            reserve: Arc::default(),
            now_ms: wall_ms,
        }
    }
}

/// The wall clock, in milliseconds since the Unix epoch.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reports the end of a thread that was not told to end, however it comes about.
#[derive(Debug)]
pub(super) struct Watched {
    host: Arc<dyn Host>,
    thread: &'static str,
    /// The reason to report; none once the thread was told to end.
    reason: Option<String>,
}

impl Watched {
    pub(super) fn new(host: Arc<dyn Host>, thread: &'static str) -> Watched {
        Watched { host, thread, reason: Some("it panicked".into()) }
    }

    /// The thread fails, for this reason.
    pub(super) fn failed(mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// The thread ends because it was told to.
    pub(super) fn done(mut self) {
        self.reason = None;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(reason) = &self.reason {
            self.host.thread_ended(self.thread, reason);
        }
    }
}
