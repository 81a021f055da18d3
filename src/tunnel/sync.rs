//! Follows the cluster: updates aliases and the files for Erlang nodes, and closes tunnels whose registration has
//! ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pmd_protocol::peer::Kind;
use tokio::time::Instant;

use super::aliases::{Aliases, Published};
use super::entry::TunnelEntrances;
use super::reachability::Candidate;
use super::responder::{Responders, lost_text};
use super::state::{Alias, Tunnels, Unlisted};
use super::system_names::SystemNames;
use super::table::Side;
use super::{direct, hosts_file, rules};
use crate::base::clock::now_ms;
use crate::base::files;
use crate::config::rules::Mode;
use crate::directory::Target;
use crate::directory::cluster::{Hosts, Registered};

/// Delay after a change, so that changes in quick succession are handled together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Minimum interval between updates of the files when hosts change. It doubles while changes continue, up to the
/// slowest: replacing the files for each of a hundred joining hosts would be most of the cost of their joining. The
/// first update is immediate: a node that reads the files before it cannot resolve the new host, and reads them again
/// only after five seconds (`inet_db`).
const FIRST_PACE: Duration = Duration::from_millis(125);
const SLOWEST_PACE: Duration = Duration::from_secs(1);
/// Minimum interval between writes of the list of aliases, which only a restart of this daemon reads.
const LIST_PACE: Duration = Duration::from_secs(5);
/// Minimum interval between looks at all nodes for those that may need no tunnel.
const NODES_PACE: Duration = Duration::from_secs(1);
/// Interval of updates without notification.
const IDLE: Duration = Duration::from_secs(60);
/// The compiled `erlang/pmd/src/pmd_epmd.erl`, which Erlang nodes load: `scripts/build-epmd-module` makes it.
const EPMD_MODULE: &[u8] = include_bytes!("pmd_epmd.beam");
/// The same while no node on this host is known to read the files.
const UNUSED: Duration = Duration::from_secs(5);
/// Maximum number of bytes that are read from the list of aliases: enough for a full one.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Writes the epmd module for Erlang nodes. A node that is told to load it cannot start without it, so this happens before
/// the daemon says that it is ready.
pub(super) fn write_module(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        files::make_public_folder(folder)?;
        // The folder in which that is has secrets, too, which their own modes protect.
        folder.parent().map_or(Ok(()), files::let_others_through)?;
    }
    files::replace_if_changed(path, EPMD_MODULE, files::PUBLIC).map(drop)
}

/// The state between two updates.
#[derive(Debug)]
struct Sync {
    tunnels: Arc<Tunnels>,
    entrances: Arc<TunnelEntrances>,
    aliases: Aliases,
    system: SystemNames,
    /// Whether the files were in use at the last update.
    used: bool,
    responders: Responders,
    /// When the list of aliases may be written again, and whether it differs from the file.
    list_after: Instant,
    list_differs: bool,
    /// When the nodes that may need no tunnel may be looked for again, and whether there may be others.
    nodes_after: Instant,
    nodes_differ: bool,
    /// Whether writing the files has failed, which is logged only once until it succeeds again.
    failed: bool,
}

/// Keeps aliases and files up to date until shutdown begins; from then on, they belong to a successor.
pub(super) async fn run(entrances: Arc<TunnelEntrances>) {
    let parts = &entrances.tunnels().parts;
    let held = parts.holding.token();
    tokio::select! {
        _ = parts.shutdown.wait() => {}
        () = follow(Arc::clone(&entrances)) => {}
    }
    drop(held);
    std::future::pending::<()>().await;
}

async fn follow(entrances: Arc<TunnelEntrances>) {
    let tunnels = Arc::clone(entrances.tunnels());
    let range = tunnels.settings().range;
    let path = tunnels.settings().aliases.clone();
    let hosts_file = tunnels.settings().hosts_file.clone();
    let read = tokio::task::spawn_blocking(move || [path, hosts_file].map(|path| read_some(&path))).await;
    let [text, hosts] = read.unwrap_or_default();
    // Nodes that were started before this daemon still read the file.
    let in_use = hosts.lines().any(|line| !line.starts_with('#'));
    tunnels.in_use.store(in_use, Ordering::Relaxed);
    let mut sync = Sync {
        aliases: Aliases::parse(range, &text, now_s()),
        system: SystemNames::new(range),
        used: false,
        responders: Responders::new(Arc::clone(&entrances)),
        tunnels,
        entrances,
        list_after: Instant::now(),
        list_differs: false,
        nodes_after: Instant::now(),
        nodes_differ: true,
        failed: false,
    };
    let mut policy = sync.tunnels.policy.subscribe();
    // The version of the hosts in the files. Changes of nodes do not raise it, so most changes need no new files.
    let mut known = None;
    let mut next = Instant::now() + UNUSED;
    let mut not_before = Instant::now();
    let mut pace = FIRST_PACE;
    loop {
        sync.close_ended();
        if Instant::now() >= not_before
            && let Some(hosts) = sync.tunnels.parts.directory.hosts(known)
        {
            known = Some(hosts.version);
            sync.update(&hosts).await;
            if sync.list_differs {
                next = next.min(sync.list_after);
            }
            if !sync.system.are_pending() {
                sync.tunnels.shown.send_replace(Some(hosts.version));
            }
            // The first host must not have to wait.
            if !hosts.members.is_empty() {
                pace = next_pace(pace, not_before.elapsed());
                not_before = Instant::now() + pace;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(not_before), if Instant::now() < not_before => {}
            () = sync.tunnels.parts.directory.changed() => {
                sync.nodes_differ = true;
                tokio::time::sleep(TOGETHER).await;
            }
            () = tokio::time::sleep_until(sync.nodes_after), if sync.nodes_differ => {}
            () = sync.tunnels.hurry.notified() => {
                not_before = Instant::now();
                if !sync.used {
                    known = None;
                }
            }
            () = sync.system.changed() => (known, not_before) = (None, Instant::now()),
            // This cannot fail: `sync` owns the sender.
            _ = policy.changed() => (known, sync.nodes_differ) = (None, true),
            () = tokio::time::sleep_until(next) => {}
        }
        if Instant::now() >= next {
            // There is no notification when the name of an absent host expires.
            (known, sync.nodes_differ) = (None, true);
            next = Instant::now() + if sync.used { IDLE } else { UNUSED };
        }
        if sync.nodes_differ && Instant::now() >= sync.nodes_after {
            (sync.nodes_differ, sync.nodes_after) = (false, Instant::now() + NODES_PACE);
            sync.check_nodes();
        }
    }
}

impl Sync {
    async fn update(&mut self, hosts: &Hosts) {
        let left = &hosts.left;
        for tunnel in self.tunnels.table().all().iter().filter(|tunnel| left.contains(&tunnel.host)) {
            tunnel.close();
        }
        let policy = self.tunnels.policy();
        let members: BTreeSet<String> =
            hosts.members.iter().filter(|host| rules::mode(&policy, host) != Mode::Never).cloned().collect();
        let published = Published { agreed: &hosts.aliases, all: &hosts.published };
        let mut changed = self.aliases.update(now_s(), &members, left, published);
        let own = self.tunnels.parts.identity.host().as_str();
        let (here, foreign): (Vec<_>, Vec<_>) =
            self.aliases.listed(now_s()).partition(|(host, _)| rules::may_resolve(&policy, own, host));
        let mut listed: BTreeMap<&str, Ipv4Addr> =
            here.into_iter().filter(|(host, _)| rules::mode(&policy, host) != Mode::Never).collect();
        let own_alias = self.tunnels.parts.directory.own_alias();
        let to_answer = listed.values().copied().chain([own_alias]).collect();
        let lost = self.responders.listen_on(to_answer);
        let mut warnings: Vec<String> = listed
            .iter()
            .filter_map(|(host, address)| {
                let at = SocketAddr::new((*address).into(), self.tunnels.parts.ports.1);
                let text = lost_text(at, *lost.get(address)?);
                Some(format!("nodes on this host cannot reach {host} through pmd: {text}"))
            })
            .collect();
        if let Some(user) = lost.get(&own_alias) {
            let at = SocketAddr::new(own_alias.into(), self.tunnels.parts.ports.1);
            let text = lost_text(at, *user);
            warnings.push(format!("nodes of this host do not find each other at its own alias: {text}"));
        }
        if let Some((first, _)) = foreign.first() {
            warnings.push(format!(
                "{} hosts outside this host's domain, such as {first}, are not resolved for nodes: add a [[tunnel_rule]] for their full names",
                foreign.len()
            ));
        }
        listed.retain(|_, address| !lost.contains_key(address));
        self.used = self.are_files_used();
        if self.used {
            self.system.ask(&listed.keys().flat_map(|host| hosts_file::names_of(host)).collect());
        }
        let text =
            hosts_file::hosts_text(own, listed.iter().map(|(host, address)| (*host, *address)), |name| {
                self.system.are_without(name)
            });
        warnings.extend(text.warnings);
        let names: BTreeMap<Ipv4Addr, Alias> = self
            .aliases
            .all()
            .map(|(host, address)| {
                let agreed = hosts.aliases.get(host) == Some(&address);
                let names = text.listed.get(host).cloned().unwrap_or_default();
                let why = || {
                    if foreign.iter().any(|(foreign, _)| *foreign == host) {
                        Unlisted::OtherDomain
                    } else if lost.contains_key(&address) {
                        Unlisted::PortTaken
                    } else if listed.contains_key(host) {
                        Unlisted::Known
                    } else {
                        Unlisted::Absent
                    }
                };
                let unlisted = names.is_empty().then(why);
                (address, Alias { host: host.to_owned(), agreed, names, unlisted })
            })
            .collect();
        changed |= self.tunnels.aliases() != names;
        warnings.extend(self.aliases.without().map(|host| {
            format!("no alias is left for {host}: widen alias_range ({})", self.tunnels.settings().range)
        }));
        // The aliases must be answered before the files send nodes to them.
        self.tunnels.set_aliases(names);
        self.list_differs |= changed;
        if let Err(error) = self.write(text.text).await {
            warnings.push(format!("cannot write the files for Erlang nodes: {error}"));
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!("cannot write the files for Erlang nodes: {error}");
            }
        } else {
            self.failed = false;
        }
        self.tunnels.set_warnings(warnings);
    }

    /// Whether nodes on this host may read the files. Until then, the resolver is not asked about each new member.
    fn are_files_used(&self) -> bool {
        let in_use = &self.tunnels.in_use;
        if !in_use.load(Ordering::Relaxed) && self.tunnels.parts.local.names().count().0 > 0 {
            in_use.store(true, Ordering::Relaxed);
        }
        in_use.load(Ordering::Relaxed)
    }

    /// Follows the nodes that may need no tunnel.
    fn check_nodes(&self) {
        let (tunnels, policy) = (&self.tunnels, self.tunnels.policy());
        let is_doubtful = |host: &str| rules::mode(&policy, host) == Mode::WhenNeeded;
        let mut candidates = Vec::new();
        if rules::uses(&policy, Mode::WhenNeeded) {
            for (origin, found) in tunnels.parts.directory.named_origins() {
                if !is_doubtful(&found.host_name().to_lowercase()) {
                    continue;
                }
                let nodes = found.entries().filter(|entry| entry.kind() == Kind::NAME);
                candidates.extend(nodes.filter_map(|entry| {
                    Some(Candidate { origin, name: entry.name().into(), port: entry.port()? })
                }));
            }
        }
        direct::check_all(tunnels, tunnels.reachable.keep(candidates.into_iter()));
    }

    /// Closes entries and tunnels to registrations that have ended.
    fn close_ended(&self) {
        let directory = &self.tunnels.parts.directory;
        let current = |target: &Target| -> Option<Registered> { self.tunnels.registered(target) };
        self.entrances.retain(|target, registered| current(target) == Some(*registered));
        for tunnel in self.tunnels.table().all() {
            let Side::Entry(target, registered) = &tunnel.side else { continue };
            // If the host itself is gone, its nodes may still be running: the connections will find out, as without
            // pmd.
            if directory.host_of(&target.origin).is_some() && current(target) != Some(*registered) {
                tunnel.close();
            }
        }
    }

    async fn write(&mut self, hosts: String) -> io::Result<()> {
        let settings = self.tunnels.settings().clone();
        let now = Instant::now();
        let aliases = (self.list_differs && self.list_after <= now).then(|| self.aliases.render());
        if aliases.is_some() {
            (self.list_after, self.list_differs) = (now + LIST_PACE, false);
        }
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = settings.hosts_file.parent() {
                files::make_private_folder(folder)?;
                files::let_others_through(folder)?;
            }
            if let Some(aliases) = aliases {
                files::replace_if_changed(&settings.aliases, &aliases, files::PUBLIC)?;
            }
            // The files are public because nodes may run as other users than pmd.
            files::replace_if_changed(&settings.hosts_file, &hosts, files::PUBLIC)?;
            files::replace_if_changed(
                &settings.inetrc,
                hosts_file::inetrc_text(&settings.hosts_file),
                files::PUBLIC,
            )?;
            Ok(())
        });
        written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// The minimum interval before the next update, when this one happened `quiet` after it was first allowed.
fn next_pace(pace: Duration, quiet: Duration) -> Duration {
    if quiet > SLOWEST_PACE { FIRST_PACE } else { (2 * pace).min(SLOWEST_PACE) }
}

fn read_some(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    // If the file is missing or incomplete, aliases are assigned again, mostly the same ones.
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_string(&mut text);
    }
    text
}

fn now_s() -> u64 {
    now_ms() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_doubles_while_changes_continue_and_is_reset_after_a_pause() {
        let mut pace = FIRST_PACE;
        let mut waited = Vec::new();
        for _ in 0..5 {
            pace = next_pace(pace, Duration::from_millis(3));
            waited.push(pace.as_millis());
        }
        assert_eq!(waited, [250, 500, 1_000, 1_000, 1_000]);
        assert_eq!(next_pace(pace, 2 * SLOWEST_PACE), FIRST_PACE);
    }
}
