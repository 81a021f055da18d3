//! The inputs of a server: the directory it answers from, the handler of other connections, and its options.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pmd_protocol::epmd::Alive2;

use super::lookup::{Asker, Later, NotFound};
use crate::counters::Counters;
use crate::descriptors::Descriptors;
use crate::latency::Latency;
use crate::names::NameRegistry;
use crate::reserve::Reserve;

/// The source of answers to lookups.
pub trait Directory: Debug + Send + Sync {
    /// Passes the registration of `name` to `answer`. Must not block.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn find(
        &self,
        asker: &Asker<'_>,
        name: &str,
        answer: &mut dyn FnMut(&Alive2<'_>),
    ) -> Result<(), NotFound>;

    /// Answers a lookup for which [`find`](Self::find) has found nothing for now. Must not block.
    fn find_later(&self, lookup: Later, name: &str) {
        let _ = name;
        lookup.answer(|_, _| Err(NotFound::STOCK));
    }

    /// The complete answer to NAMES_REQ.
    fn names(&self, asker: &Asker<'_>) -> Arc<[u8]>;

    /// Whether lookups from another host are answered.
    fn may_ask(&self, peer: Option<SocketAddr>) -> bool;

    /// Whether the address to which this request was sent stands for another host, so that only lookups are answered.
    fn is_elsewhere(&self, _: &Asker<'_>) -> bool {
        false
    }
}

/// The simplest directory: the nodes of this host, open to all, as in stock epmd.
impl Directory for NameRegistry {
    fn find(&self, _: &Asker<'_>, name: &str, answer: &mut dyn FnMut(&Alive2<'_>)) -> Result<(), NotFound> {
        if NameRegistry::find(self, name, answer) { Ok(()) } else { Err(NotFound::STOCK) }
    }

    fn names(&self, _: &Asker<'_>) -> Arc<[u8]> {
        self.render_names()
    }

    fn may_ask(&self, _: Option<SocketAddr>) -> bool {
        true
    }
}

/// The handler of connections on the EPMD port that speak another protocol.
pub trait Handoff: Debug + Send + Sync {
    /// Whether a connection that starts with `head` does not speak EPMD.
    fn wants(&self, asker: &Asker<'_>, head: &[u8]) -> bool;

    /// Takes such a connection over, or closes it. Must not block.
    fn take(&self, socket: OwnedFd, peer: SocketAddr, head: &[u8]);
}

/// The program that a server runs in.
pub trait Host: Debug + Send + Sync {
    /// A KILL request was accepted: the program must exit.
    fn killed(&self);

    /// One of the server's threads ended unexpectedly. The port is still bound, but the thread serves no more clients.
    fn thread_ended(&self, thread: &str, reason: &str);
}

/// The options of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of threads that may serve the port.
    pub threads: usize,
    /// Whether KILL is accepted while nodes are registered, and whether STOP is accepted at all.
    pub relaxed_command_check: bool,
    /// Whether any local user may end a server without nodes by KILL, as with stock epmd. Otherwise only root and the
    /// user of this process may.
    pub kill_by_anyone: bool,
    /// The time within which a connection must complete its request.
    pub packet_timeout: Duration,
    /// Stock's test aid: a pause after each accept.
    pub delay_accept: Duration,
    /// Stock's test aid: a pause before each write.
    pub delay_write: Duration,
}

impl Default for Options {
    /// The options of stock epmd, with one thread.
    fn default() -> Options {
        Options {
            threads: 1,
            relaxed_command_check: false,
            kill_by_anyone: true,
            packet_timeout: Duration::from_secs(60),
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
        }
    }
}

/// The state shared by the threads of a server.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The nodes of this host.
    pub names: Arc<NameRegistry>,
    /// The source of answers to lookups, often the same.
    pub directory: Arc<dyn Directory>,
    /// The handler of connections that are not EPMD.
    pub handoff: Option<Arc<dyn Handoff>>,
    /// The program around the server.
    pub host: Arc<dyn Host>,
    /// Counts requests and connections.
    pub counters: Arc<Counters>,
    /// Measures some of the requests.
    pub latency: Arc<Latency>,
    /// Limits the use of the process's descriptors.
    pub descriptors: Arc<Descriptors>,
    /// The descriptor for accepting when no other is left.
    pub reserve: Arc<Reserve>,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: fn() -> u64,
}

impl Shared {
    /// A server that answers from `names` and uses at most `descriptor_limit` descriptors; everything else is as in
    /// stock epmd.
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

/// Reports the unexpected end of a thread, whatever the cause.
#[derive(Debug)]
pub(super) struct Watched {
    host: Arc<dyn Host>,
    thread: &'static str,
    /// The reason to report; `None` once the thread was told to stop.
    reason: Option<String>,
}

impl Watched {
    pub(super) fn new(host: Arc<dyn Host>, thread: &'static str) -> Watched {
        Watched { host, thread, reason: Some("it panicked".into()) }
    }

    /// Reports that the thread fails for this reason.
    pub(super) fn failed(mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// Notes that the thread ends because it was told to.
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
