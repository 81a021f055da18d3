//! The cluster: the core thread, the state derived from it, and this daemon's membership.
//!
//! ```text
//!   links ── messages ───────────────────────▶ driver ── patches, events ──▶ bridge ──▶ read model, event log
//!   others ── commands, snapshots ──▶ core ──┘
//! ```

pub mod addresses;
pub mod alarm;
mod bridge;
pub mod core;
pub mod decisions;
mod driver;
pub mod evict;
pub mod expel;
mod joiner;
pub mod joiner_handle;
pub mod membership;
pub mod named;
mod names_file;
mod revocation_file;
pub mod revoke;
mod rotate;
mod rotation;
mod rotation_file;
pub mod rotator;
mod secret_file;
pub mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_core::attest::{Keys, id_of};
use pmd_core::node::{Node, Now, Settings as NodeSettings};
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::{Expulsion, Host, Metadata};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::auth::cookie::{Cookies, Transition, read_secrets};
use crate::auth::revocation::VerifiedLists;
use crate::auth::tls::Tls;
use crate::base::clock::now_ms;
use crate::base::log::limited::{LimitedLog, Limits};
use crate::base::stats::Counters;
use crate::base::supervise::Supervisor;
use crate::config::cluster::ClusterSettings;
use crate::directory::local::Local;
use crate::discovery::Discovery;
use crate::discovery::broadcast::BeaconSettings;
use crate::discovery::candidates::Candidates;
use crate::discovery::seeds::Seeds;
use crate::discovery::spec::plugin;
use crate::link::dial::Dialer;
use crate::link::inbox::CoreInbox;
use crate::link::known_addresses::KnownAddresses;
use crate::link::local_identity::LocalIdentity;
use crate::link::refusals::Refusals;
use crate::link::session::{DialRequest, Heard, Links};
use crate::link::shares::{Reports, Shares};
use addresses::advertised;
use bridge::Bridge;
use core::Core;
use driver::Start;
use joiner_handle::Joiner;
use membership::{Cluster, ClusterError};
use names_file::Hold;
use revoke::Revoker;
use rotation::{Latest, Rotations};
use rotator::Rotator;

/// Queued requests to dial back: room for a burst from each of a few peers.
const DIAL_REQUESTS: usize = 256;
/// Questions and answers of peers that wait to be handled. Beyond that, they are dropped, and the questions given up.
const HEARD: usize = 256;

/// The files that are loaded before the daemon serves anything, so that a problem with them prevents the start.
#[derive(Debug)]
pub struct Prepared {
    tls: Arc<Tls>,
    cookies: Arc<Cookies>,
    decisions: Vec<Expulsion>,
    /// The latest list of revoked certificates of each authority.
    revocations: VerifiedLists,
    /// The latest rotation of the secret, and what it means for peers.
    rotation: Option<Latest>,
    transition: Option<Transition>,
    /// Whether the cluster secret was just generated, so no other daemon has it yet.
    pub new_cookie: bool,
}

impl Prepared {
    /// Loads or creates the files that a daemon needs to take part in a cluster. Blocks for the slow derivation of a key
    /// from a secret that was not generated.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used.
    pub fn new(settings: &ClusterSettings) -> Result<Prepared, ClusterError> {
        let tls = Arc::new(Tls::load(&settings.identity, settings.host.as_str())?);
        let (cookies, new_cookie) = Cookies::read_or_make(&settings.cookie_file)?;
        let decisions = decisions::read(&settings.decisions_file)?;
        let signers = tls.list_signers();
        let revocations = signers.map(|signers| revocation_file::read(&settings.revocations_file, signers));
        let revocations = revocations.transpose()?.unwrap_or_default();
        let rotation = rotation_file::read(&settings.rotation_file)
            .map_err(|reason| ClusterError::Rotation { path: settings.rotation_file.clone(), reason })?;
        let secrets = read_secrets(&settings.cookie_file)?;
        let resumed = rotation.as_ref().and_then(|latest| rotate::resumed(latest, &secrets));
        let (transition, newer) =
            resumed.map_or((None, None), |(transition, newer)| (Some(transition), newer));
        let cookies = Arc::new(newer.unwrap_or(cookies));
        Ok(Prepared { tls, cookies, decisions, revocations, rotation, transition, new_cookie })
    }
}

/// The parts of the daemon that a cluster depends on.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The cluster's settings.
    pub settings: &'a ClusterSettings,
    /// The metadata that this host publishes.
    pub metadata: Metadata,
    /// The port that the daemon listens on.
    pub port: u16,
    /// The addresses that the daemon listens on.
    pub listening: &'a [SocketAddr],
    /// The registrations of this host.
    pub local: &'a Arc<Local>,
    /// The counters for links.
    pub counters: &'a Arc<Counters>,
    /// Remembers rejected peers.
    pub refusals: &'a Arc<Refusals>,
    /// Manages the process's descriptor budget.
    pub descriptors: &'a Arc<Descriptors>,
    /// Starts threads and tasks.
    pub supervisor: &'a Supervisor,
}

/// A running cluster.
#[derive(Debug)]
pub struct Started {
    /// The membership.
    pub cluster: Arc<Cluster>,
    /// Serves the links that peers open.
    pub links: Links,
    /// Receives requests to dial back.
    pub dial_requests: mpsc::Receiver<DialRequest>,
    /// Receives questions and answers about registrations.
    pub heard: mpsc::Receiver<Heard>,
}

/// Starts the core on its own thread, and the tasks that support it on the current runtime.
///
/// # Errors
///
/// If a thread cannot be started, or the host's metadata is too long.
pub fn start(parts: Parts<'_>, prepared: Prepared) -> Result<Started, ClusterError> {
    let Parts { settings, metadata, port, listening, local, counters, refusals, descriptors, supervisor } =
        parts;
    let Prepared { tls, cookies, decisions, revocations, rotation, transition, .. } = prepared;
    let addresses = match settings.advertise.as_slice() {
        [] => advertised(listening),
        said => said.to_vec(),
    };
    // An authority says whose a name is, so nobody has to wait for the one that had it before.
    let name = if tls.checks_names() { Duration::ZERO } else { settings.hold_names };
    let hold = Hold { name, alias: settings.hold_names };
    let id = id_of(&tls.keys().public_key());
    let directory = Arc::new(names_file::read(&settings.names_file, hold, id, settings.tunnel.range));
    let host = Host {
        host: settings.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata,
        leaving: false,
        relay: settings.tunnel.relay,
        secret_ms: transition.as_ref().and(rotation.as_ref()).map_or(0, |latest| latest.rotation.begun_ms),
        alias: Some(directory.own_alias_claim()),
    };
    let node_settings = NodeSettings {
        keys: tls.keys(),
        seed: driver::seed()?,
        addresses,
        host,
        tuning: settings.tuning.clone(),
        administrators: settings.administrators.clone(),
        decisions,
    };
    let clock = Instant::now();
    let now = Now { mono_ms: 0, wall_ms: now_ms() };
    let node = Node::new(node_settings.clone(), now).map_err(|_| ClusterError::Metadata)?;
    let (identity, watched) = watch::channel(node.identity().clone());
    let own = LocalIdentity::new(settings.name.clone(), settings.host.clone(), watched, tls, cookies);
    let own = Arc::new(own);
    own.set_decisions(node.expulsions().iter().map(|one| (one.member, one.clone())).collect());
    own.set_revocations(revocations);
    own.set_transition(transition);
    supervisor.task("decisions", decisions::keep(settings.decisions_file.clone(), own.watch_decisions()));
    let runtime = Handle::current();
    let dialer = Dialer::new(Arc::clone(&own), Arc::clone(descriptors), Arc::clone(refusals), runtime);
    let (inbox, messages) = CoreInbox::new();
    let (dial_requests, asked_to_dial) = mpsc::channel(DIAL_REQUESTS);
    let (rotations_heard, rotations) = mpsc::channel(rotate::HEARD);
    let log = LimitedLog::new(Handle::current(), Limits::REPETITIONS);
    let reports = Reports { refusals: Arc::clone(refusals), log: Some(log) };
    let shares = Shares::new(descriptors.limit(), reports);
    let (lists_heard, lists) = mpsc::channel(revoke::HEARD);
    let counters = Arc::clone(counters);
    let (questions, heard) = mpsc::channel(HEARD);
    let links = Links::new(inbox, counters, shares, dial_requests, rotations_heard, lists_heard, questions);
    let (core, commands) = Core::new();
    for decision in node.expulsions().iter().filter(|decision| decision.expelled) {
        directory.set_expelled(decision.member, true);
    }
    let (members, members_watched) = watch::channel(0);
    let (summaries, summaries_watched) = watch::channel(0);
    let (told_to_leave, mut leaving) = mpsc::channel(1);
    let changes = LimitedLog::new(Handle::current(), Limits::CHANGES);
    let start = Start {
        node,
        settings: node_settings,
        clock,
        local: Arc::clone(&own),
        identity,
        summaries,
        follow_interfaces: settings.advertise.is_empty().then(|| listening.to_vec()),
        log: LimitedLog::new(Handle::current(), Limits::REPETITIONS),
        changes: Arc::clone(&changes),
        bridge: Bridge::new(Arc::clone(local), Arc::clone(&directory), members, changes),
        links: links.clone(),
        dialer: dialer.clone(),
        leave_on_request: settings.leave_on_request,
        told_to_leave,
        commands,
        messages,
    };
    let thread = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    supervisor.thread("core", move || thread.block_on(driver::run(start)))?;

    let names =
        names_file::keep(settings.names_file.clone(), Arc::clone(&directory), members_watched.clone());
    supervisor.task("names", names);
    let (rotator, rotation_requests) = Rotator::new();
    let rotating = rotate::Parts {
        local: Arc::clone(&own),
        core: core.clone(),
        directory: Arc::clone(&directory),
        members: members_watched.clone(),
        cookie_file: settings.cookie_file.clone(),
        rotation_file: settings.rotation_file.clone(),
        log: LimitedLog::new(Handle::current(), Limits::REPETITIONS),
    };
    let grace_ms = u64::try_from(settings.rotate_grace.as_millis()).unwrap_or(u64::MAX);
    let known = Rotations::new(settings.administrators.clone(), grace_ms, rotation);
    let is_administrator = known.may_begin(&*own.tls().keys());
    supervisor.task("rotation", rotate::run(rotating, known, rotations, rotation_requests));

    let (revoker, installing) = Revoker::new();
    let revoking = revoke::Parts {
        local: Arc::clone(&own),
        core: core.clone(),
        file: settings.revocations_file.clone(),
        log: LimitedLog::new(Handle::current(), Limits::REPETITIONS),
    };
    supervisor.task("revocations", revoke::run(revoking, lists, installing));

    let beacons = BeaconSettings {
        cluster: settings.name.clone(),
        id: own.id(),
        port,
        bind: listening.iter().map(SocketAddr::ip).collect(),
        beacon_port: port,
        cookies: own.watch_cookies(),
    };
    let seeds: Box<dyn Discovery> = Box::new(Seeds::new(settings.seeds.iter().cloned()));
    let others = settings.discovery.iter().map(|spec| plugin(spec, &beacons));
    let plugins: Vec<_> = std::iter::once(seeds).chain(others).collect();
    let candidates = Candidates::new(settings.name.clone(), port);
    let (joiner, questions) = Joiner::new();
    let cluster = Arc::new(Cluster {
        local: own,
        core,
        known: Arc::new(KnownAddresses::new(Arc::clone(&directory))),
        directory,
        dialer,
        links: links.clone(),
        joiner,
        rotator,
        revoker,
        is_administrator,
        descriptors: Arc::clone(descriptors),
        members: members_watched.clone(),
        summaries: summaries_watched,
        cookie_file: settings.cookie_file.clone(),
        port,
        broadcasts: settings.broadcasts(),
    });
    if let Some(warning) = cluster.weak_secret() {
        tracing::warn!("{warning}");
    }
    let joining = joiner::run(Arc::clone(&cluster), candidates, plugins, members_watched, questions);
    supervisor.task("joiner", joining);
    let evicted = Arc::clone(&cluster);
    supervisor.task("eviction", async move {
        while leaving.recv().await.is_some() {
            // This fails only if the daemon is shutting down, and then it leaves anyway.
            let _ = evicted.leave().await;
        }
        // The core has ended. It is supervised itself, so this task must not report it as well.
        std::future::pending::<()>().await;
    });
    Ok(Started { cluster, links, dial_requests: asked_to_dial, heard })
}
