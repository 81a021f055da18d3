//! Runs the daemon: assembles its parts from the settings, starts them, and shuts them down.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pmd_epmd::descriptors::Descriptors;
use pmd_epmd::kernel::sockets;
use pmd_epmd::server::listener::{ListenError, Listener, bind_all};
use pmd_epmd::server::{Handoff, Host, Options, SHARD_DESCRIPTORS, Server, Shared};
use pmd_protocol::peer::Metadata;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

use super::handoff::Dispatcher;
use super::{notify, process};
use crate::base::clock::{Monotonic, now_ms};
use crate::base::shutdown::{Reason, Shutdown};
use crate::base::stats::Counters;
use crate::base::supervise::Supervisor;
use crate::claims::{self, Claims, ClaimsProtocol};
use crate::cluster::membership::{Cluster, ClusterError};
use crate::cluster::{self, Prepared};
use crate::config::cluster::ClusterSettings;
use crate::config::settings::Settings;
use crate::control::handles::{About, Handles, Measured, Member};
use crate::control::reload::Reloader;
use crate::control::{server, socket};
use crate::directory::local::Local;
use crate::directory::{Directory, Others};
use crate::link::accept::{AcceptQueue, Acceptor};
use crate::link::oneshot::Oneshots;
use crate::link::protocol::{Protocol, Protocols};
use crate::link::refusals::Refusals;
use crate::tunnel::asking::TunnelInquirer;
use crate::tunnel::state::Parts as TunnelParts;
use crate::tunnel::{self, RelayProtocol, TunnelProtocol};
use crate::web;

/// Interval of checks for expired services.
const EXPIRY: Duration = Duration::from_secs(1);
/// Time for the node of a name that was taken over from another port mapper to register again, which takes about 2 s.
const ADOPTION: Duration = Duration::from_secs(20);
/// Timeout for the release of everything that a successor needs, besides the EPMD port.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout for the end of the control connections, and then of all threads and tasks.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Options that depend on how the daemon was started.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Sockets passed by systemd, which replace those in the settings.
    pub inherited: Option<Vec<Listener>>,
    /// How signals are handled.
    pub signals: SignalRules,
    /// Whether to notify the service manager, if it asked for it.
    pub notify: bool,
    /// Called once requests are answered.
    pub on_ready: Option<fn(&Ready)>,
    /// Whether to tell the parent process that the daemon is ready, and the file, if any, to which log lines go from
    /// then on.
    pub announce: Option<Option<PathBuf>>,
}

/// A daemon that has just become ready.
#[derive(Debug)]
pub struct Ready {
    /// Facts that do not change while it runs.
    pub about: Arc<About>,
    /// The name of its cluster and its id there; `None` if it is not part of one.
    pub member: Option<(String, String)>,
}

/// How a daemon handles signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignalRules {
    /// SIGTERM and SIGINT shut the daemon down, SIGHUP reloads its configuration.
    #[default]
    Service,
    /// Like stock epmd: all signals have their default action, except that a daemon in the background ignores SIGHUP.
    Stock {
        /// Whether the daemon is in the background.
        background: bool,
    },
}

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The EPMD port is not available.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The cluster part of the daemon cannot start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Another system call failed.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs a daemon until it shuts down.
///
/// # Errors
///
/// If it cannot start.
pub fn foreground(settings: Settings, mut options: RunOptions) -> Result<Reason, StartError> {
    let limit = process::raise_descriptor_limit();
    let listeners = match options.inherited.take() {
        Some(inherited) => inherited,
        None => bind_all(&settings.bind, settings.listen_port())?,
    };
    // Only after the port is bound, so that the files of another running daemon are not touched.
    let prepared = settings.cluster.as_ref().map(Prepared::new).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("runtime")
        .enable_all()
        .build()?;
    let reason = runtime.block_on(run(settings, listeners.into(), limit, prepared, &options))?;
    runtime.shutdown_timeout(END_TIMEOUT);
    Ok(reason)
}

/// The callbacks of the EPMD server into the daemon.
#[derive(Debug)]
struct Program {
    shutdown: Shutdown,
}

impl Host for Program {
    fn killed(&self) {
        self.shutdown.request(Reason::Kill);
    }

    fn thread_ended(&self, thread: &str, reason: &str) {
        tracing::error!(
            "the thread {thread} has ended ({reason}): the daemon cannot continue without it and exits"
        );
        self.shutdown.request(Reason::Failed);
    }
}

/// The parts that exist with and without a cluster.
#[derive(Debug)]
struct Parts {
    local: Arc<Local>,
    about: Arc<About>,
    measured: Measured,
    /// Tracks tasks that hold resources a successor needs, besides the EPMD port.
    holding: TaskTracker,
    supervisor: Supervisor,
}

impl Parts {
    fn new(settings: &Settings, listening: Vec<SocketAddr>, descriptor_limit: usize) -> Parts {
        let started_ms = now_ms();
        let about = About {
            host: settings.host.clone(),
            port: settings.port,
            listen_port: settings.listen_port(),
            listening,
            socket: settings.socket.clone(),
            relaxed_command_check: settings.relaxed_command_check,
            metadata: settings.metadata.clone(),
            started_ms,
            started: Monotonic::now(),
            boot_id: format!("{started_ms:x}-{}", std::process::id()),
        };
        let measured = Measured {
            descriptors: Arc::new(Descriptors::new(descriptor_limit)),
            epmd: Arc::default(),
            latency: Arc::default(),
            counters: Arc::new(Counters::default()),
            refusals: Arc::new(Refusals::default()),
            handshakes: Arc::default(),
        };
        Parts {
            local: Arc::new(Local::new(settings.host.clone(), settings.port, settings.old_names)),
            about: Arc::new(about),
            measured,
            holding: TaskTracker::new(),
            supervisor: Supervisor::new(Shutdown::new()),
        }
    }

    /// Starts the cluster part of the daemon.
    fn join_cluster(
        &self,
        settings: &ClusterSettings,
        prepared: Prepared,
    ) -> Result<(Arc<Member>, AcceptQueue), ClusterError> {
        let Parts { local, about, measured, holding, supervisor } = self;
        let metadata = Metadata::new(about.metadata.clone()).map_err(|_| ClusterError::Metadata)?;
        let parts = cluster::Parts {
            settings,
            metadata,
            port: about.listen_port,
            listening: &about.listening,
            local,
            counters: &measured.counters,
            refusals: &measured.refusals,
            descriptors: &measured.descriptors,
            supervisor,
        };
        let cluster::Started { cluster, links, dial_requests, heard } = cluster::start(parts, prepared)?;
        let parts = TunnelParts {
            settings: settings.tunnel.clone(),
            ports: (about.port, about.listen_port),
            listening: about.listening.clone(),
            identity: Arc::clone(cluster.local()),
            core: cluster.core().clone(),
            local: Arc::clone(local),
            directory: Arc::clone(cluster.directory()),
            dialer: cluster.dialer().clone(),
            counters: Arc::clone(&measured.counters),
            epmd_counters: Arc::clone(&measured.epmd),
            refusals: Arc::clone(&measured.refusals),
            descriptors: Arc::clone(&measured.descriptors),
            holding: holding.clone(),
            shutdown: supervisor.shutdown().clone(),
        };
        let (tunnels, entrances) = tunnel::start(parts, dial_requests, heard, supervisor);
        let claims = claims::start(&claims::Parts {
            settings,
            local: cluster.local(),
            directory: cluster.directory(),
            dialer: cluster.dialer(),
            counters: &measured.counters,
            supervisor,
        })?;
        let (peers, queue) = AcceptQueue::new();
        let acceptor = Acceptor {
            identity: Arc::clone(cluster.local()),
            protocols: Protocols::new(with_claims(
                claims.as_ref(),
                vec![
                    Arc::new(Oneshots::new(
                        Arc::clone(cluster.local()),
                        links.inbox().clone(),
                        Arc::clone(&measured.counters),
                        Arc::clone(links.shares()),
                    )),
                    Arc::new(links),
                    Arc::new(TunnelProtocol(Arc::clone(&tunnels))),
                    Arc::new(RelayProtocol(Arc::clone(&tunnels))),
                ],
            )),
            known: Arc::clone(cluster.known_addresses()),
            handshakes: Arc::clone(&measured.handshakes),
            counters: Arc::clone(&measured.counters),
            refusals: Arc::clone(&measured.refusals),
        };
        supervisor.task("acceptor", acceptor.serve(queue));
        Ok((Arc::new(Member { cluster, tunnels, claims, entrances }), peers))
    }
}

/// Adds the protocol of claims to these, if there are voters.
fn with_claims(
    claims: Option<&Arc<Claims>>,
    mut protocols: Vec<Arc<dyn Protocol>>,
) -> Vec<Arc<dyn Protocol>> {
    if let Some(claims) = claims {
        protocols.push(Arc::new(ClaimsProtocol(Arc::clone(claims))));
    }
    protocols
}

async fn run(
    settings: Settings,
    listeners: Arc<[Listener]>,
    descriptor_limit: usize,
    prepared: Option<Prepared>,
    options: &RunOptions,
) -> Result<Reason, StartError> {
    // Before anything can tell others that the daemon exists: a signal must not end it without the orderly shutdown.
    let signals = Signals::new(options.signals)?;
    let listening = listeners.iter().filter_map(Listener::address).collect();
    let parts = Parts::new(&settings, listening, descriptor_limit);
    let joined = match settings.cluster.as_ref().zip(prepared) {
        Some((settings, prepared)) => Some(parts.join_cluster(settings, prepared)?),
        None => None,
    };
    let (member, peers) = joined.unzip();
    let others = member.as_ref().map(|member| Others {
        cluster: Arc::clone(member.cluster.directory()),
        entrances: Arc::clone(&member.entrances) as Arc<_>,
        inquirer: Arc::new(TunnelInquirer(Arc::clone(&member.tunnels))),
    });
    let access = settings.cluster.as_ref().map(|cluster| cluster.epmd_access).unwrap_or_default();
    let directory = Arc::new(Directory::new(Arc::clone(&parts.local), others, access));
    let of_member = |member: &Arc<Member>| (Arc::clone(&member.cluster), Arc::clone(&member.tunnels));
    let reloader = Reloader {
        config_file: settings.config_file.clone(),
        from_file: settings.from_file.clone(),
        member: member.as_ref().map(of_member).zip(settings.cluster.clone()).map(|((a, b), c)| (a, b, c)),
    };
    let handles = Handles {
        about: Arc::clone(&parts.about),
        measured: parts.measured.clone(),
        directory: Arc::clone(&directory),
        member: member.clone(),
        shutdown: parts.supervisor.shutdown().clone(),
        reloader: Arc::new(reloader),
    };
    let handoff = peers.zip(member.as_ref()).map(|(peers, member)| {
        let access = settings.cluster.as_ref().map(|cluster| cluster.web).unwrap_or_default();
        let web = web::start(&handles, access, &parts.supervisor);
        let descriptors = Arc::clone(&parts.measured.descriptors);
        let counters = Arc::clone(&parts.measured.counters);
        let entrances = Arc::clone(&member.entrances);
        Arc::new(Dispatcher { entrances, peers, web, descriptors, counters }) as Arc<dyn Handoff>
    });
    // The daemon runs without its control socket if need be, because nodes depend only on the EPMD port.
    let control = match socket::bind(&settings) {
        Ok(socket) => Some(tokio::spawn(server::serve(handles.clone(), parts.holding.clone(), socket))),
        Err(error) => {
            tracing::warn!(
                "cannot open the control socket, so pmd commands cannot reach this daemon: {error}"
            );
            None
        }
    };
    parts.supervisor.task("expiry of services", expire_services(Arc::clone(&parts.local)));
    parts.supervisor.task("expiry of adoptions", expire_adoptions(Arc::clone(&parts.local)));
    // All descriptors are open now, except for those of the server. Until it runs, connections wait in the kernel.
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        parts.measured.descriptors.set_own(open.count() + SHARD_DESCRIPTORS * settings.threads);
    }
    let shared = Shared {
        names: Arc::clone(parts.local.names()),
        directory,
        handoff,
        host: Arc::new(Program { shutdown: parts.supervisor.shutdown().clone() }),
        counters: Arc::clone(&parts.measured.epmd),
        latency: Arc::clone(&parts.measured.latency),
        descriptors: Arc::clone(&parts.measured.descriptors),
        reserve: Arc::default(),
        now_ms,
    };
    let server = Server::start(shared, listeners, server_options(&settings))?;
    if let Some(on_ready) = options.on_ready {
        let own = member.as_ref().map(|member| member.cluster.local());
        let member = own.map(|own| (own.cluster().to_owned(), own.id().to_string()));
        on_ready(&Ready { about: Arc::clone(&parts.about), member });
    }
    if let Some(log) = &options.announce {
        process::announce_ready(log.as_deref())?;
    }
    if options.notify {
        notify::ready();
    }
    let shutdown = parts.supervisor.shutdown().clone();
    let reason = tokio::select! {
        reason = shutdown.wait() => reason,
        () = signals.wait(&handles.reloader) => Reason::Signal,
    };
    tracing::info!(?reason, "shutting down");
    shutdown.request(reason);
    if options.notify && options.signals == SignalRules::Service {
        notify::stopping();
    }
    // The port is released before the daemon leaves the cluster, because its names are useless from now on. A successor
    // that finds the port free must find everything else free as well, so that is released first.
    parts.holding.close();
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, parts.holding.wait()).await;
    server.close();
    if let Some(member) = &member {
        leave_cluster(&member.cluster, reason).await;
    }
    if let Some(control) = control {
        let _ = tokio::time::timeout(END_TIMEOUT, control).await;
    }
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    if !(parts.supervisor.join(END_TIMEOUT).await && stopped.await.is_ok()) {
        tracing::warn!("not all threads and tasks have ended within {} s", END_TIMEOUT.as_secs());
    }
    Ok(reason)
}

/// Leaves the cluster and stops the core. A daemon that failed will be restarted soon, so it does not announce that it
/// leaves, and the others keep looking for it.
async fn leave_cluster(cluster: &Cluster, reason: Reason) {
    if reason != Reason::Failed {
        // This fails if the core has ended, and then the others cannot be told.
        let _ = cluster.depart().await;
    }
    cluster.core().stop().await;
}

fn server_options(settings: &Settings) -> Options {
    Options {
        threads: settings.threads,
        relaxed_command_check: settings.relaxed_command_check,
        // A daemon that was started under the name `epmd` behaves like it.
        kill_by_anyone: settings.cluster.is_none(),
        packet_timeout: settings.packet_timeout,
        delay_accept: settings.delay_accept,
        delay_write: settings.delay_write,
    }
}

async fn expire_services(local: Arc<Local>) {
    let mut ticks = tokio::time::interval(EXPIRY);
    loop {
        ticks.tick().await;
        local.expire_services(now_ms());
    }
}

/// Unregisters names that were taken over from another port mapper, if the node has not registered again in time and
/// nothing listens on its port. A node that still listens is too old to register again (before OTP 23.3) and keeps its
/// name.
async fn expire_adoptions(local: Arc<Local>) {
    let mut seen: HashMap<u64, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(ADOPTION / 4);
    loop {
        ticks.tick().await;
        let adopted = local.names().adopted();
        seen.retain(|id, _| adopted.iter().any(|entry| entry.id == *id));
        let is_overdue = |id: u64, seen: &mut HashMap<u64, Instant>| {
            seen.entry(id).or_insert_with(Instant::now).elapsed() >= ADOPTION
        };
        let overdue: Vec<_> = adopted.iter().filter(|entry| is_overdue(entry.id, &mut seen)).collect();
        if overdue.is_empty() {
            continue;
        }
        let sockets = tokio::task::spawn_blocking(|| sockets::find(|socket| socket.listens)).await;
        // If the socket tables cannot be read, no name is removed.
        let Ok(Ok(sockets)) = sockets else { continue };
        let listening: BTreeSet<u16> = sockets.iter().map(|socket| socket.local.port()).collect();
        for entry in overdue.into_iter().filter(|entry| !listening.contains(&entry.port)) {
            local.names().unregister(&entry.name, entry.id, now_ms(), "not_back");
        }
    }
}

/// The signals that this daemon handles.
#[derive(Debug)]
struct Signals {
    end: Vec<Signal>,
    hangup: Option<Signal>,
    rules: SignalRules,
}

impl Signals {
    fn new(rules: SignalRules) -> io::Result<Signals> {
        let service = rules == SignalRules::Service;
        let end = if service {
            vec![signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
        } else {
            Vec::new()
        };
        // A handler replaces the default action, which would end the process, even if the handler does nothing.
        let handled = service || rules == SignalRules::Stock { background: true };
        let hangup = handled.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Signals { end, hangup, rules })
    }

    /// Waits for a signal that ends the daemon, and reloads the configuration on SIGHUP.
    async fn wait(mut self, reloader: &Arc<Reloader>) {
        loop {
            tokio::select! {
                () = any(&mut self.end) => return,
                () = any(self.hangup.as_mut_slice()) => {
                    if self.rules == SignalRules::Service {
                        // The reloader logs the result.
                        let reloader = Arc::clone(reloader);
                        let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
                    }
                }
            }
        }
    }
}

/// Waits for the first of several signals; forever if there are none.
async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|task| {
        if signals.iter_mut().any(|signal| signal.poll_recv(task).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
