//! Follows the cluster: aliases, the files for Erlang nodes, and the end of what is not registered any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::aliases::Aliases;
use super::entry::TunnelEntrances;
use super::reachability::Reachable;
use super::responder::Responders;
use super::state::{Alias, Tunnels};
use super::table::Side;
use super::{hosts_file, rules};
use crate::base::clock::now_ms;
use crate::base::files;
use crate::config::rules::Mode;
use crate::directory::Target;
use crate::directory::cluster::{Hosts, Registered};

/// Changes that come close together are looked at together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Changes of hosts in a row, each of which would replace the files, wait for each other as long as this at first, and twice as
/// long each time up to the slowest: what a hundred joining hosts do to a disk would be most of the cost of their joining.
/// The first look at a cluster waits for nothing: a node that reads the files before has no name for the host that was
/// joined, and does not look again for five seconds (`inet_db`).
const FIRST_PACE: Duration = Duration::from_millis(125);
const SLOWEST_PACE: Duration = Duration::from_secs(1);
/// How often all is looked at, whether or not somebody tells of a change.
const IDLE: Duration = Duration::from_secs(60);
/// Most that is read of the list of aliases: that of a full one.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What is known between two rounds.
#[derive(Debug)]
struct Sync {
    tunnels: Arc<Tunnels>,
    entrances: Arc<TunnelEntrances>,
    aliases: Aliases,
    reachable: Reachable,
    responders: Responders,
    /// Said once and not again before it has worked.
    failed: bool,
}

/// Keeps aliases and files up to date until the daemon begins to end: from then on they are its successor's.
pub(super) async fn keep(entrances: Arc<TunnelEntrances>) {
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
    let read = tokio::task::spawn_blocking(move || read_some(&path)).await;
    let text = read.unwrap_or_default();
    let mut sync = Sync {
        aliases: Aliases::parse(range, &text, now_s()),
        reachable: Reachable::new(Arc::clone(&tunnels.parts.directory)),
        responders: Responders::new(Arc::clone(&entrances)),
        tunnels,
        entrances,
        failed: false,
    };
    let mut policy = sync.tunnels.policy.subscribe();
    // Nodes come and go all the time, hosts do not.
    let mut known = None;
    let mut next = Instant::now() + IDLE;
    let mut not_before = Instant::now();
    let mut pace = FIRST_PACE;
    loop {
        sync.end_what_has_ended();
        if Instant::now() >= not_before
            && let Some(hosts) = sync.tunnels.parts.directory.hosts(known)
        {
            known = Some(hosts.version);
            sync.look(&hosts).await;
            sync.tunnels.shown.send_replace(Some(hosts.version));
            // Without members there is nothing that could be one of many changes.
            if !hosts.members.is_empty() {
                pace = next_pace(pace, not_before.elapsed());
                not_before = Instant::now() + pace;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(not_before), if Instant::now() < not_before => {}
            () = sync.tunnels.parts.directory.changed() => tokio::time::sleep(TOGETHER).await,
            () = sync.tunnels.hurry.notified() => not_before = Instant::now(),
            () = sync.reachable.changed() => known = None,
            // It cannot end: the sender is this sync's own.
            _ = policy.changed() => known = None,
            () = tokio::time::sleep_until(next) => {}
        }
        if Instant::now() >= next {
            // Names of hosts that are long gone go without anybody telling.
            known = None;
            next = Instant::now() + IDLE;
        }
        // Which of its nodes can be reached says whether a host needs tunnels.
        if rules::uses(&sync.tunnels.policy(), Mode::WhenNeeded) {
            known = None;
        }
    }
}

impl Sync {
    async fn look(&mut self, hosts: &Hosts) {
        let left = &hosts.left;
        for tunnel in self.tunnels.table().all().iter().filter(|tunnel| left.contains(&tunnel.host)) {
            tunnel.close();
        }
        let policy = self.tunnels.policy();
        let members: BTreeSet<String> =
            hosts.members.iter().filter(|host| rules::mode(&policy, host) != Mode::Never).cloned().collect();
        let mut changed = self.aliases.update(now_s(), &members, left);
        let doubtful = members.iter().filter(|host| rules::mode(&policy, host) == Mode::WhenNeeded);
        self.reachable.check(doubtful.cloned().collect());
        let listed: BTreeMap<&str, Ipv4Addr> = self
            .aliases
            .listed(now_s())
            .filter(|(host, _)| match rules::mode(&policy, host) {
                Mode::Always => true,
                Mode::WhenNeeded => !self.reachable.is_plain(host),
                Mode::Never => false,
            })
            .collect();
        let names: BTreeMap<Ipv4Addr, Alias> = self
            .aliases
            .all()
            .map(|(host, address)| {
                (address, Alias { host: host.to_owned(), listed: listed.contains_key(host) })
            })
            .collect();
        changed |= self.tunnels.aliases() != names;
        self.responders.listen_on(listed.values().copied().collect());
        let own = self.tunnels.parts.identity.host().as_str();
        let text = hosts_file::hosts_text(own, listed.iter().map(|(host, address)| (*host, *address)));
        let mut warnings = text.warnings;
        warnings.extend(self.aliases.without().map(|host| {
            format!(
                "there is no alias left for {host}: widen alias_range ({})",
                self.tunnels.settings().range
            )
        }));
        // First what is answered, then who is sent there.
        self.tunnels.set_aliases(names);
        if let Err(error) = self.write(text.text, changed).await {
            warnings.push(format!("the files for Erlang nodes cannot be written: {error}"));
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!("the files for Erlang nodes cannot be written: {error}");
            }
        } else {
            self.failed = false;
        }
        // Nor is there anything to wait for if it failed.
        self.tunnels.set_warnings(warnings);
    }

    /// Closes entries and tunnels to registrations that have ended.
    fn end_what_has_ended(&self) {
        let directory = &self.tunnels.parts.directory;
        let current = |target: &Target| -> Option<Registered> {
            directory.registered(&target.origin, target.kind, &target.name)
        };
        self.entrances.retain(|target, registered| current(target) == Some(*registered));
        for tunnel in self.tunnels.table().all() {
            let Side::Entry(target, registered) = &tunnel.side else { continue };
            // A host that is not seen any more has not said that its nodes have ended: whether they have, their own
            // connections find out, as they would without pmd.
            if directory.host_of(&target.origin).is_some() && current(target) != Some(*registered) {
                tunnel.close();
            }
        }
    }

    async fn write(&self, hosts: String, aliases_changed: bool) -> io::Result<()> {
        let settings = self.tunnels.settings().clone();
        let aliases = aliases_changed.then(|| self.aliases.render());
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = settings.hosts_file.parent() {
                files::make_private_folder(folder)?;
                files::let_others_through(folder)?;
            }
            if let Some(aliases) = aliases {
                files::replace_if_changed(&settings.aliases, &aliases, files::PUBLIC)?;
            }
            // Nodes run as other users than pmd.
            files::replace_if_changed(&settings.hosts_file, &hosts, files::PUBLIC)?;
            files::replace_if_changed(
                &settings.inetrc,
                &hosts_file::inetrc_text(&settings.hosts_file),
                files::PUBLIC,
            )?;
            Ok(())
        });
        written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// How long the next change of hosts waits, when the last one might have come `quiet` before it did.
fn next_pace(pace: Duration, quiet: Duration) -> Duration {
    if quiet > SLOWEST_PACE { FIRST_PACE } else { (2 * pace).min(SLOWEST_PACE) }
}

fn read_some(path: &std::path::Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    // Without it, or with half of it, aliases are given anew, and are the same most of the time.
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
    fn changes_in_a_row_wait_longer_each_time_and_one_after_a_rest_does_not() {
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
