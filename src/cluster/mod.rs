//! The daemon's part in a cluster: everything that belongs to it, put together, and what can be asked of it.

pub mod addresses;
pub mod driver;
pub mod evict;
pub mod joiner;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_core::node::{Node, Now, Settings as NodeSettings};
use pmd_core::tuning::Tuning;
use pmd_protocol::HostName;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Host, Metadata, NodeId};
use tokio::sync::{mpsc, watch};

use crate::auth::cookie::{CookieError, Cookies};
use crate::auth::tls::{Tls, TlsError};
use crate::base::clock::now_ms;
use crate::config::cluster::ClusterSettings;
use crate::daemon::Context;
use crate::directory::cluster::ClusterDirectory;
use crate::discovery::Discovery;
use crate::discovery::broadcast::BeaconSettings;
use crate::discovery::candidates::Candidates;
use crate::discovery::seeds::Seeds;
use crate::discovery::spec::plugin;
use crate::link::accept::{self, Doorman, Stranger};
use crate::link::dial::{DialError, Dialer};
use crate::link::handshake::GreetingError;
use crate::link::local_identity::Me;
use crate::link::permit::Place;
use crate::link::session;
use crate::tunnel::{Parts, Tunnels};
use addresses::advertised;
use driver::{Core, Ended, Input, Start};
use joiner::Seeker;

/// How long a daemon that leaves waits until everybody else knows.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// A daemon's part in a cluster.
#[derive(Debug)]
pub struct Cluster {
    context: Arc<Context>,
    me: Arc<Me>,
    core: Core,
    directory: Arc<ClusterDirectory>,
    dialer: Dialer,
    doorman: Doorman,
    tunnels: Arc<Tunnels>,
    seeker: Seeker,
}

/// What is made before the daemon serves anybody, so that what is wrong with its files is told at the start.
#[derive(Debug)]
pub struct Prepared {
    tls: Arc<Tls>,
    cookies: Arc<Cookies>,
    /// Whether the cookie is a new one, which no other daemon has.
    pub new_cookie: bool,
}

/// Why a daemon cannot take part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its key or certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its cookie.
    #[error(transparent)]
    Cookie(#[from] CookieError),
    /// What it says about itself.
    #[error("this host's metadata is too long to be told to others")]
    Metadata,
    /// The system.
    #[error("the cluster cannot be started: {0}")]
    System(#[from] std::io::Error),
}

impl ClusterError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ClusterError::Tls(error) => error.hint(),
            ClusterError::Cookie(error) => error.hint(),
            ClusterError::Metadata => "shorten the table [metadata] of the configuration file".into(),
            ClusterError::System(_) => "see the system's reason".into(),
        }
    }
}

/// Why a daemon was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its name has no address.
    #[error("{host} has no address: {reason}")]
    Unresolvable {
        /// The name.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// What was given is no address.
    #[error("{0:?} is not an address such as db1, db1:4369, 10.0.0.5 or [fd00::5]:4369")]
    Malformed(String),
    /// See [`DialError`].
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// All descriptors are in use.
    #[error("no descriptor is free for another connection")]
    Full,
    /// The daemon is about to end.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// A daemon that was joined.
#[derive(Debug, Clone)]
pub struct Partner {
    /// Who.
    pub id: NodeId,
    /// What it calls its host.
    pub host: HostName,
    /// The address that answered.
    pub address: SocketAddr,
}

impl Prepared {
    /// Reads, or makes, the files that a daemon needs to take part in a cluster.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used.
    pub fn new(settings: &ClusterSettings) -> Result<Prepared, ClusterError> {
        let tls = Arc::new(Tls::load(&settings.identity, settings.host.as_str())?);
        let (cookies, new_cookie) = Cookies::read_or_make(&settings.cookie_file)?;
        Ok(Prepared { tls, cookies: Arc::new(cookies), new_cookie })
    }
}

impl Cluster {
    /// Starts the core on a thread of its own, and everything around it on this runtime.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub fn start(
        context: &Arc<Context>,
        settings: &ClusterSettings,
        prepared: Prepared,
    ) -> Result<Arc<Cluster>, ClusterError> {
        let Prepared { tls, cookies, .. } = prepared;
        let addresses = match settings.advertise.as_slice() {
            [] => advertised(&context.listening),
            said => said.to_vec(),
        };
        let metadata =
            Metadata::new(context.settings.metadata.clone()).map_err(|_| ClusterError::Metadata)?;
        let host = Host {
            host: settings.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metadata,
            leaving: false,
            relay: settings.tunnel.relay,
        };
        let node_settings = NodeSettings {
            id: tls.id(),
            seed: driver::seed()?,
            addresses,
            host,
            // The log that people read, with this host's own events in it, is the daemon's.
            tuning: Tuning { events_kept: 0, ..settings.tuning.clone() },
        };
        let clock = Instant::now();
        let now = Now { mono_ms: 0, wall_ms: now_ms() };
        let node = Node::new(node_settings.clone(), now).map_err(|_| ClusterError::Metadata)?;
        let (identity, watched) = watch::channel(node.identity().clone());
        let me = Me::new(settings.name.clone(), settings.host.clone(), watched, tls, cookies);
        let me = Arc::new(me);
        let runtime = tokio::runtime::Handle::current();
        let probe = Duration::from_millis(settings.tuning.membership.probe_rtt_ms);
        let dialer = Dialer::new(Arc::clone(&me), Arc::clone(context), runtime.clone(), probe);
        let (core, inputs) = Core::new();
        let directory = Arc::new(ClusterDirectory::default());
        let (members, members_watched) = watch::channel(0);
        let start = Start {
            context: Arc::clone(context),
            settings: node_settings,
            directory: Arc::clone(&directory),
            identity,
            follow_interfaces: settings.advertise.is_empty(),
            members,
            dialer: dialer.clone(),
            runtime: runtime.clone(),
        };
        spawn_core(node, start, core.clone(), inputs, clock)?;
        let (doorman, strangers) = Doorman::new();
        let tunnels = Tunnels::start(Parts {
            context: Arc::clone(context),
            settings: settings.tunnel.clone(),
            me: Arc::clone(&me),
            core: core.clone(),
            directory: Arc::clone(&directory),
            dialer: dialer.clone(),
            runtime,
        });
        let accepting = (Arc::clone(context), Arc::clone(&me), core.clone(), Arc::clone(&tunnels));
        tokio::spawn(accept::serve(strangers, accepting.0, accepting.1, accepting.2, accepting.3));
        let port = context.settings.listen_port();
        let beacons = BeaconSettings {
            cluster: settings.name.clone(),
            id: me.tls().id(),
            port,
            bind: context.listening.iter().map(SocketAddr::ip).collect(),
            beacon_port: port,
            cookies: me.watch_cookies(),
        };
        let seeds: Box<dyn Discovery> = Box::new(Seeds::new(settings.seeds.iter().cloned()));
        let others = settings.discovery.iter().map(|spec| plugin(spec, &beacons));
        let plugins: Vec<_> = std::iter::once(seeds).chain(others).collect();
        let candidates = Candidates::new(settings.name.clone(), port);
        let (seeker, questions) = Seeker::new();
        let context = Arc::clone(context);
        let cluster = Arc::new(Cluster { context, me, core, directory, dialer, doorman, tunnels, seeker });
        joiner::start(&cluster, candidates, plugins, members_watched, questions);
        Ok(cluster)
    }

    /// What this daemon is to others.
    pub fn me(&self) -> &Arc<Me> {
        &self.me
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// What looks for other daemons.
    pub fn seeker(&self) -> &Seeker {
        &self.seeker
    }

    /// What reaches other daemons.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// What is registered on other hosts.
    pub fn directory(&self) -> &ClusterDirectory {
        &self.directory
    }

    /// Aliases and tunnels.
    pub fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// Takes over a connection from `address` that has begun with TLS, and of which `head` was read already.
    pub fn admit(&self, socket: OwnedFd, address: SocketAddr, head: Vec<u8>) {
        let admitted = Place::take(&self.context)
            .is_some_and(|place| self.doorman.offer(Stranger { socket, address, head, place }).is_ok());
        if !admitted {
            self.context.counters.handshakes_full.add();
        }
    }

    /// Joins whoever answers at `asked`: returns when both have proven that they belong together.
    ///
    /// # Errors
    ///
    /// If nobody does, or one does not let the other in.
    pub async fn join(&self, asked: &str) -> Result<Partner, JoinError> {
        let addresses = self.resolve(asked).await?;
        let place = Place::take(&self.context).ok_or(JoinError::Full)?;
        let greeted = self.dialer.reach(&addresses, None).await?;
        let partner = Partner { id: greeted.hello.id, host: greeted.host.clone(), address: greeted.address };
        self.me.set_left(false);
        let (core, context) = (self.core.clone(), Arc::clone(&self.context));
        tokio::spawn(async move {
            session::serve(greeted, true, core, context).await;
            drop(place);
        });
        Ok(partner)
    }

    /// The addresses that are meant by `asked`: `HOST`, `HOST:PORT`, `ADDRESS` or `[IPV6]:PORT`.
    ///
    /// # Errors
    ///
    /// If it is no address, or a name that has none.
    pub async fn resolve(&self, asked: &str) -> Result<Vec<SocketAddr>, JoinError> {
        let own = self.context.settings.listen_port();
        let (host, port) = split(asked, own).ok_or_else(|| JoinError::Malformed(asked.to_owned()))?;
        let unresolvable = |reason: String| JoinError::Unresolvable { host: host.to_owned(), reason };
        let found = tokio::net::lookup_host((host, port)).await;
        let found: BTreeSet<SocketAddr> = found.map_err(|error| unresolvable(error.to_string()))?.collect();
        if found.is_empty() {
            return Err(unresolvable("the name is known, but has no address".into()));
        }
        // IPv4 sorts first, as in what daemons tell of themselves.
        Ok(found.into_iter().collect())
    }

    /// Tells everybody that this daemon leaves, and closes its links. How many members there were besides it.
    ///
    /// # Errors
    ///
    /// If the daemon is about to end.
    pub async fn leave(&self) -> Result<usize, Ended> {
        self.me.set_left(true);
        let visit = self.core.visit(|running| (running.node().members().count(), running.leave()));
        let (members, told) = visit.await?;
        tracing::info!(members, "leaving the cluster, and telling its members");
        // Whoever has not heard it by then finds out by itself.
        let _ = tokio::time::timeout(FAREWELL, told).await;
        Ok(members)
    }

    /// Reads cookie and certificates again. What has changed.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used; nothing has changed then.
    pub fn reload(&self, settings: &ClusterSettings) -> Result<Vec<&'static str>, ClusterError> {
        let tls = Tls::load(&settings.identity, settings.host.as_str())?;
        if tls.id() != self.me.tls().id() {
            return Err(TlsError::OtherKey.into());
        }
        let cookies = Cookies::read(&settings.cookie_file)?;
        let mut changed = Vec::new();
        if tls.certificate() != self.me.tls().certificate() && tls.checks_names() {
            changed.push("certificate");
        }
        self.me.set_tls(Arc::new(tls));
        if self.me.set_cookies(Arc::new(cookies)) {
            changed.push("cookie");
        }
        Ok(changed)
    }
}

impl JoinError {
    /// Whether this daemon itself answers there.
    #[must_use]
    pub fn is_oneself(&self) -> bool {
        let oneself = |source: &GreetingError| {
            // The side that was dialled notices first, and says so.
            matches!(
                source,
                GreetingError::Oneself | GreetingError::Refused { reason: Reason::Duplicate, .. }
            )
        };
        matches!(self, JoinError::Dial(DialError::Greeting { source, .. }) if oneself(source))
    }
}

fn spawn_core(
    node: Node,
    start: Start,
    core: Core,
    inputs: mpsc::Receiver<Input>,
    clock: Instant,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("core".into()).spawn(move || {
        runtime.block_on(driver::run(node, start, core, inputs, clock));
    })?;
    Ok(())
}

/// Host and port of an address as people write it.
fn split(asked: &str, default: u16) -> Option<(&str, u16)> {
    let asked = asked.trim();
    if let Some(rest) = asked.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => default,
            None => return None,
        };
        return Some((host, port)).filter(|(host, port)| !host.is_empty() && *port != 0);
    }
    let (host, port) = match asked.rsplit_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((host, _)) if host.contains(':') => (asked, default),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (asked, default),
    };
    Some((host, port)).filter(|(host, port)| !host.is_empty() && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (asked, meant) in [
            ("db1", Some(("db1", 4369))),
            ("db1:5000", Some(("db1", 5000))),
            ("10.0.0.1", Some(("10.0.0.1", 4369))),
            ("fd00::1", Some(("fd00::1", 4369))),
            ("[fd00::1]", Some(("fd00::1", 4369))),
            ("[fd00::1]:5000", Some(("fd00::1", 5000))),
            ("", None),
            (":5000", None),
            ("db1:port", None),
            ("db1:0", None),
            ("db1:70000", None),
            ("[fd00::1]x", None),
            ("[]:5000", None),
        ] {
            assert_eq!(split(asked, 4369), meant, "{asked}");
        }
    }
}
