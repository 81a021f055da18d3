//! From settings to a serving daemon, and to its end: the parts are put together here, and nowhere else.

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

use super::handoff::ByFirstByte;
use super::{notify, process};
use crate::base::clock::{Monotonic, now_ms};
use crate::base::shutdown::{Reason, Shutdown};
use crate::base::stats::Counters;
use crate::base::supervise::Supervisor;
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
use crate::link::protocol::Protocols;
use crate::link::refusals::Refusals;
use crate::tunnel::state::Parts as TunnelParts;
use crate::tunnel::{self, RelayProtocol, TunnelProtocol};
use crate::web;

/// How often services are checked for the end of their time to live.
const EXPIRY: Duration = Duration::from_secs(1);
/// Time for the node of a name that was taken over from another port mapper to register again; it does so within about 2 s.
const ADOPTION: Duration = Duration::from_secs(20);
/// Time for everything that a successor needs, beside the EPMD port, to be given up.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for the control connections, and then for all threads and tasks, to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How a daemon behaves toward what started it.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Sockets handed over by a supervisor, in place of the ones in the settings.
    pub inherited: Option<Vec<Listener>>,
    /// Which signals mean something.
    pub signals: SignalRules,
    /// Tell the service manager when ready, if it asked for it.
    pub notify: bool,
    /// Called once requests are answered.
    pub on_ready: Option<fn(&Ready)>,
    /// Tell the process that started this one that it is ready; then write log lines to this file, if any.
    pub announce: Option<Option<PathBuf>>,
}

/// A daemon that has just become ready.
#[derive(Debug)]
pub struct Ready {
    /// What does not change while it runs.
    pub about: Arc<About>,
    /// The name of its cluster and its id there; none if it takes no part in one.
    pub member: Option<(String, String)>,
}

/// What a daemon does with signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignalRules {
    /// SIGTERM and SIGINT end it in good order, SIGHUP makes it read its configuration again.
    #[default]
    Service,
    /// Stock epmd's: all are left to the system, but a daemon in the background ignores SIGHUP.
    Stock {
        /// Whether it is in the background.
        background: bool,
    },
}

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The EPMD port is not available.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The daemon cannot take part in a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The system refused something else.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs a daemon until it is told to end.
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
    // Only once the port is this daemon's: files that another daemon uses are not touched.
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

/// The program around the EPMD server.
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
            "the thread {thread} has ended ({reason}): the daemon cannot go on without it and exits, to be started again"
        );
        self.shutdown.request(Reason::Failed);
    }
}

/// The parts that exist whether or not the daemon takes part in a cluster.
#[derive(Debug)]
struct Parts {
    local: Arc<Local>,
    about: Arc<About>,
    measured: Measured,
    /// Everything beside the EPMD port that holds what a successor needs.
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
        };
        Parts {
            local: Arc::new(Local::new(settings.host.clone(), settings.port, settings.old_names)),
            about: Arc::new(about),
            measured,
            holding: TaskTracker::new(),
            supervisor: Supervisor::new(Shutdown::new()),
        }
    }

    /// Starts this daemon's part in a cluster.
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
        let cluster::Started { cluster, links, dial_requests } = cluster::start(parts, prepared)?;
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
        let (tunnels, entrances) = tunnel::start(parts, dial_requests, supervisor);
        let (peers, queue) = AcceptQueue::new();
        let acceptor = Acceptor {
            identity: Arc::clone(cluster.local()),
            protocols: Protocols::new(vec![
                Arc::new(Oneshots(links.inbox().clone())),
                Arc::new(links),
                Arc::new(TunnelProtocol(Arc::clone(&tunnels))),
                Arc::new(RelayProtocol(Arc::clone(&tunnels))),
            ]),
            counters: Arc::clone(&measured.counters),
            refusals: Arc::clone(&measured.refusals),
        };
        supervisor.task("acceptor", acceptor.serve(queue));
        Ok((Arc::new(Member { cluster, tunnels, entrances }), peers))
    }
}

async fn run(
    settings: Settings,
    listeners: Arc<[Listener]>,
    descriptor_limit: usize,
    prepared: Option<Prepared>,
    options: &RunOptions,
) -> Result<Reason, StartError> {
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
    let handoff = peers.map(|peers| {
        let access = settings.cluster.as_ref().map(|cluster| cluster.web).unwrap_or_default();
        let web = web::start(&handles, access, &parts.supervisor);
        let descriptors = Arc::clone(&parts.measured.descriptors);
        let counters = Arc::clone(&parts.measured.counters);
        Arc::new(ByFirstByte { peers, web, descriptors, counters }) as Arc<dyn Handoff>
    });
    // Without its control socket the daemon is still a port mapper, and that is what nodes depend on.
    let control = match socket::bind(&settings) {
        Ok(socket) => Some(tokio::spawn(server::serve(handles.clone(), parts.holding.clone(), socket))),
        Err(error) => {
            tracing::warn!("no control socket, so the pmd command cannot talk to this daemon: {error}");
            None
        }
    };
    parts.supervisor.task("expiry of services", expire_services(Arc::clone(&parts.local)));
    parts.supervisor.task("expiry of adoptions", expire_adoptions(Arc::clone(&parts.local)));
    let signals = Signals::new(options.signals)?;
    // Everything is open now but what the server needs. Until it runs, connections wait in the kernel.
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
    tracing::info!(?reason, "ending");
    shutdown.request(reason);
    if options.notify && options.signals == SignalRules::Service {
        notify::stopping();
    }
    // The names end with this daemon, so its port is free before it takes leave of the cluster. A successor that finds the port
    // free must find everything else free as well.
    parts.holding.close();
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, parts.holding.wait()).await;
    server.close();
    if let Some(member) = &member {
        take_leave(&member.cluster, reason).await;
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

/// Leaves the cluster and ends the core. A daemon that fails is to be started again at once, so it does not announce that it
/// leaves: the others then look for it.
async fn take_leave(cluster: &Cluster, reason: Reason) {
    if reason != Reason::Failed {
        // It fails if the core has ended, and then nobody can be told.
        let _ = cluster.leave().await;
    }
    cluster.core().stop().await;
}

fn server_options(settings: &Settings) -> Options {
    Options {
        threads: settings.threads,
        relaxed_command_check: settings.relaxed_command_check,
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

/// Ends names that were taken over from another port mapper, once their node has had its time to register again and nobody
/// listens on its port. A node that still does is too old to register again (before OTP 23.3), and stays to be found.
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
        // Without the tables nothing is known, and nothing is ended.
        let Ok(Ok(sockets)) = sockets else { continue };
        let listening: BTreeSet<u16> = sockets.iter().map(|socket| socket.local.port()).collect();
        for entry in overdue.into_iter().filter(|entry| !listening.contains(&entry.port)) {
            local.names().unregister(&entry.name, entry.id, now_ms(), "not_back");
        }
    }
}

/// The signals that this daemon listens to.
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
        // A signal that is listened to no longer ends the process, whatever is done about it.
        let listens = service || rules == SignalRules::Stock { background: true };
        let hangup = listens.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Signals { end, hangup, rules })
    }

    /// Waits for a signal that ends the daemon, and does what the others ask for.
    async fn wait(mut self, reloader: &Arc<Reloader>) {
        loop {
            tokio::select! {
                () = any(&mut self.end) => return,
                () = any(self.hangup.as_mut_slice()) => {
                    if self.rules == SignalRules::Service {
                        // The outcome is in the log.
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
