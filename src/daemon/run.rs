//! From settings to a serving daemon, and to its end.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::{Context, now_ms};
use super::{notify, process};
use crate::base::kernel::sockets;
use crate::base::shutdown::Reason;
use crate::cluster::{Cluster, ClusterError, Prepared};
use crate::config::settings::Settings;
use crate::control;
use crate::epmd::holder_check::HolderCheck;
use crate::epmd::listener::{ListenError, Listener, bind_all};
use crate::epmd::shard::Shard;
use crate::epmd::table::Tables;
use crate::web;

/// How often services are checked for their end.
const EXPIRY: Duration = Duration::from_secs(1);
/// How long a name taken over from another port mapper waits for its node, which comes back within about 2 s.
const ADOPTION: Duration = Duration::from_secs(20);
/// Descriptors of a shard: its epoll set, its bell, and a connection that it has just accepted.
const SHARD_DESCRIPTORS: usize = 3;
/// How long the end of what listens beside the EPMD port is waited for.
const DOORS: Duration = Duration::from_millis(500);
/// How long the end of the control connections is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

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
    pub on_ready: Option<fn(&Context)>,
    /// Tell the process that started this one that it is ready; then write log lines to this file, if any.
    pub announce: Option<Option<PathBuf>>,
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
    /// The EPMD port could not be had.
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
pub fn foreground(settings: Settings, mut options: RunOptions) -> Result<Reason, StartError> {
    let limit = process::raise_descriptor_limit();
    let listeners = match options.inherited.take() {
        Some(inherited) => inherited,
        None => bind_all(&settings.bind, settings.listen_port())?,
    };
    // Only once the port is had: what another daemon uses is not touched.
    let prepared = settings.cluster.as_ref().map(Prepared::new).transpose()?;
    let addresses = listeners.iter().filter_map(Listener::address).collect();
    let context = Context::new(settings, addresses, limit);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("runtime")
        .enable_all()
        .build()?;
    let reason = runtime.block_on(supervise(&context, listeners.into(), prepared, &options))?;
    runtime.shutdown_timeout(FAREWELL);
    Ok(reason)
}

fn start_shards(context: &Arc<Context>, listeners: Arc<[Listener]>) -> Result<(), StartError> {
    // The test aids of stock epmd stop the whole server while they pause.
    let paused = !(context.settings.delay_accept.is_zero() && context.settings.delay_write.is_zero());
    let shards = if paused { 1 } else { context.settings.threads };
    let holder_check = HolderCheck::start()?;
    let (first_tables, other_tables) = Tables::for_shards(shards);
    let helpers = other_tables
        .map(|tables| {
            Shard::helper(Arc::clone(context), Arc::clone(&listeners), holder_check.clone(), tables)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::from)?;
    let first = Shard::first(Arc::clone(context), listeners, holder_check, first_tables, &helpers)
        .map_err(io::Error::from)?;
    for (number, shard) in std::iter::once(first).chain(helpers).enumerate() {
        std::thread::Builder::new().name(format!("epmd-{number}")).spawn(move || {
            let error = shard.run();
            tracing::error!("a thread of the EPMD port has ended: {error}");
        })?;
    }
    Ok(())
}

async fn supervise(
    context: &Arc<Context>,
    listeners: Arc<[Listener]>,
    prepared: Option<Prepared>,
    options: &RunOptions,
) -> Result<Reason, StartError> {
    if let Some((settings, prepared)) = context.settings.cluster.as_ref().zip(prepared) {
        let cluster = Cluster::start(context, settings, prepared)?;
        let _ = context.cluster.set(cluster);
        if let Some(door) = web::start(context, settings.web) {
            let _ = context.web.set(door);
        }
    }
    // Without its control socket the daemon is still a port mapper, and that is what nodes depend on.
    let control = match control::socket::bind(&context.settings) {
        Ok(socket) => Some(tokio::spawn(control::server::serve(Arc::clone(context), socket))),
        Err(error) => {
            tracing::warn!("no control socket, so the pmd command cannot talk to this daemon: {error}");
            None
        }
    };
    let services = tokio::spawn(expire_services(Arc::clone(context)));
    let adoptions = tokio::spawn(expire_adoptions(Arc::clone(context)));
    let signals = Signals::new(options.signals)?;
    // Now that all of it is there but the shards. Until they run, connections wait in the kernel.
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let threads = context.settings.threads;
        context.descriptors.set_own(open.count() + SHARD_DESCRIPTORS * threads);
    }
    start_shards(context, Arc::clone(&listeners))?;
    if let Some(on_ready) = options.on_ready {
        on_ready(context);
    }
    if let Some(log) = &options.announce {
        process::announce_ready(log.as_deref())?;
    }
    if options.notify {
        notify::ready();
    }
    let reason = tokio::select! {
        reason = context.shutdown.wait() => reason,
        () = signals.wait(context) => Reason::Signal,
    };
    tracing::info!(?reason, "ending");
    context.shutdown.request(reason);
    if options.notify && options.signals == SignalRules::Service {
        notify::stopping();
    }
    // Names end with this daemon: who asks for them now is not to wait for its farewell. A successor that finds the port
    // free must find the rest free as well.
    context.doors.close();
    let _ = tokio::time::timeout(DOORS, context.doors.wait()).await;
    listeners.iter().for_each(Listener::close);
    services.abort();
    adoptions.abort();
    if let Some(cluster) = context.cluster.get() {
        // An end of the core is the end of everything, and then there is nobody to tell.
        let _ = cluster.leave().await;
    }
    if let Some(control) = control {
        let _ = tokio::time::timeout(FAREWELL, control).await;
    }
    Ok(reason)
}

async fn expire_services(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(EXPIRY);
    loop {
        ticks.tick().await;
        context.registry.expire_services(now_ms());
    }
}

/// Ends names that were taken over from another port mapper, once their node has had its time to come back and
/// nobody listens on its port. A node that still does is one that is too old to register again by itself (before
/// OTP 23.3), and stays to be found.
async fn expire_adoptions(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(ADOPTION / 4);
    loop {
        ticks.tick().await;
        let overdue = context.registry.overdue_adoptions(now_ms().saturating_sub(millis(ADOPTION)));
        if overdue.is_empty() {
            continue;
        }
        let sockets = tokio::task::spawn_blocking(|| sockets::find(|socket| socket.listens)).await;
        // Without the tables nothing is known, and nothing is ended.
        let Ok(Ok(sockets)) = sockets else { continue };
        let listening: BTreeSet<u16> = sockets.iter().map(|socket| socket.local.port()).collect();
        for entry in overdue.iter().filter(|entry| !listening.contains(&entry.port)) {
            context.registry.unregister(&entry.name, entry.id, now_ms(), "not_back");
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    async fn wait(mut self, context: &Context) {
        loop {
            tokio::select! {
                () = any(&mut self.end) => return,
                () = any(self.hangup.as_mut_slice()) => {
                    if self.rules == SignalRules::Service {
                        // What came of it is in the log.
                        let _ = control::server::reload(context);
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
