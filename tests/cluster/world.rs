//! A cluster on its own hosts, and waiting for conditions on all of them.

use std::ops::{Index, IndexMut, Range};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pmd::control::api::{ClusterStatus, Join};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fleet::{Fleet, Site};
use crate::machine::{Machine, Registered, Said};
use crate::watch::Watch;

/// The cookie of every cluster here. It has the form of a generated one, whose key is derived quickly.
pub(crate) const COOKIE: &str = "c1a57e5700000000000000000000000000000000000000000000000000000001";
/// The cookie of another cluster.
pub(crate) const OTHER_COOKIE: &str = "c1a57e5700000000000000000000000000000000000000000000000000000002";
/// How long a cluster may take to converge before the test fails; generous, because nothing here measures time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of each daemon's log that a failed test shows.
const TAIL: usize = 25;
/// Up to this many hosts, a failed test reports on all of them.
const SMALL: usize = 12;
/// Worlds with at least this many hosts run alone.
const HEAVY: usize = 30;

/// Held by a world that needs the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Hosts on one network and their daemons.
#[derive(Debug)]
pub(crate) struct World {
    machines: Vec<Machine>,
    fleet: Fleet,
    runtime: Runtime,
    folder: TempDir,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl World {
    /// Hosts with a common cookie and no daemons.
    pub(crate) fn new(count: usize) -> World {
        let alone = (count >= HEAVY).then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
        let fleet = Fleet::new(count);
        let folder = TempDir::new().expect("a folder");
        let machine = |site: &Site| {
            let machine = Machine::new(site, folder.path().join(&site.name));
            machine.set_cookies(&[COOKIE]);
            machine
        };
        let machines = fleet.sites().iter().map(machine).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        World { machines, fleet, runtime, folder, _alone: alone }
    }

    /// Hosts with a daemon each.
    pub(crate) fn started(count: usize) -> World {
        let mut world = World::new(count);
        world.start_all();
        world
    }

    /// Hosts in one cluster that has converged.
    pub(crate) fn joined(count: usize) -> World {
        let world = World::started(count);
        world.join_first(1..count);
        world.wait_until_agreed(&world.all());
        world
    }

    /// How many hosts there are.
    pub(crate) fn len(&self) -> usize {
        self.machines.len()
    }

    /// The numbers of all hosts.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// The numbers of all hosts but these.
    pub(crate) fn all_but(&self, some: &[usize]) -> Vec<usize> {
        (0..self.len()).filter(|host| !some.contains(host)).collect()
    }

    /// The network.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The site where a host's programs run.
    pub(crate) fn site(&self, host: usize) -> &Site {
        &self.fleet.sites()[host]
    }

    /// A folder that all hosts share.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a future to completion.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs a future in the background, no longer than this world.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    // ---- daemons

    /// Starts the daemon of every host that has none.
    pub(crate) fn start_all(&mut self) {
        let sites = self.fleet.sites();
        for (machine, site) in
            self.machines.iter_mut().zip(sites).filter(|(machine, _)| !machine.has_daemon())
        {
            machine.launch(site, &[]);
        }
        self.machines.iter_mut().for_each(Machine::wait_until_up);
    }

    /// Starts the daemon of one host.
    pub(crate) fn start(&mut self, host: usize) {
        self.start_with(host, &[]);
    }

    /// Starts the daemon of one host with additional environment variables.
    pub(crate) fn start_with(&mut self, host: usize, environment: &[(&str, &str)]) {
        self.machines[host].launch(&self.fleet.sites()[host], environment);
        self.machines[host].wait_until_up();
    }

    /// Runs `pmd ARGS` on a host.
    pub(crate) fn run(&self, host: usize, args: &[&str]) -> Said {
        self.machines[host].run(self.site(host), args)
    }

    /// Makes these hosts join the first one, concurrently.
    pub(crate) fn join_first(&self, hosts: Range<usize>) {
        let seed = self.machines[0].ip.to_string();
        let join = Join { addresses: vec![seed], timeout_ms: Some(60_000) };
        let joining = hosts.map(|host| {
            let (api, join) = (self.machines[host].api().with_timeout(PATIENCE), &join);
            async move { api.join(join).await.unwrap_or_else(|error| panic!("h{}: {error}", host + 1)) }
        });
        self.block_on(join_all(joining));
    }

    /// Registers a node on a host.
    pub(crate) fn register(&self, host: usize, name: &str, port: u16) -> Registered {
        self.machines[host].register(self.site(host), name, port)
    }

    /// Follows the events of a host's daemon.
    pub(crate) fn watch(&self, host: usize) -> Watch {
        Watch::begin(&self.runtime, &self.machines[host].name, &self.machines[host].api())
    }

    // ---- the daemons' views

    /// A host's cluster status; none if its daemon does not answer or is not clustered.
    pub(crate) fn status(&self, host: usize) -> Option<ClusterStatus> {
        self.block_on(self.machines[host].api().status()).ok()?.cluster
    }

    /// The host names of the members that a host sees, sorted.
    pub(crate) fn members(&self, host: usize) -> Vec<String> {
        let list = self.block_on(self.machines[host].api().nodes());
        let mut names: Vec<String> =
            list.map(|list| list.nodes.into_iter().map(|node| node.host).collect()).unwrap_or_default();
        names.sort();
        names
    }

    /// The Erlang nodes that a host sees: name, host and port, sorted.
    pub(crate) fn names(&self, host: usize) -> Vec<(String, String, u16)> {
        let list = self.block_on(self.machines[host].api().cluster_names(None));
        let mut names: Vec<_> = list
            .map(|list| list.names.into_iter().map(|node| (node.name, node.host, node.port)).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    // ---- waiting

    /// Waits until `condition` holds on all of `hosts` in a single pass.
    pub(crate) fn wait_on(&self, hosts: &[usize], what: &str, condition: impl Fn(usize) -> bool) {
        self.wait_or_tell(hosts, what, condition, |host| self.summary(host));
    }

    /// The same; a failure shows the output of `tell` for every host.
    fn wait_or_tell(
        &self,
        hosts: &[usize],
        what: &str,
        condition: impl Fn(usize) -> bool,
        tell: impl Fn(usize) -> String,
    ) {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(5);
        loop {
            // Hosts that failed last time are checked first, which usually makes checking the others unnecessary.
            let Some(late) = hosts.iter().find(|host| !condition(**host)) else { return };
            while !condition(*late) {
                if Instant::now() >= deadline {
                    let name = &self.machines[*late].name;
                    // In large clusters, the failing hosts are shown first.
                    let mut order = vec![*late];
                    order.extend(hosts.iter().filter(|host| **host != *late && !condition(**host)));
                    order.extend(hosts.iter().filter(|host| **host != *late).take(SMALL));
                    order.truncate(2 * SMALL);
                    let told: Vec<String> = order.into_iter().map(tell).collect();
                    panic!("timed out after {PATIENCE:?} on {name} waiting for: {what}\n{}", told.join("\n"));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }

    /// A host's view of the cluster, in one line.
    fn summary(&self, host: usize) -> String {
        let name = &self.machines[host].name;
        let Some(status) = self.status(host) else { return format!("{name}: no answer") };
        let mut line = format!(
            "{name}: fingerprint {}, {} members ({} suspects), {} of {} links agree, {} names",
            &status.fingerprint[..8],
            status.members,
            status.suspects,
            status.agreeing,
            status.links,
            status.names,
        );
        let peers =
            self.block_on(self.machines[host].api().peers()).map(|list| list.peers).unwrap_or_default();
        for peer in peers.iter().filter(|peer| !peer.agrees) {
            let (other, heard) = (&peer.host, peer.heard_ms);
            line += &format!("; not with {other} ({}, heard {heard} ms ago)", peer.address);
        }
        if self.len() <= SMALL {
            line += &format!("; sees {}", self.members(host).join(" "));
        }
        line
    }

    /// Waits until these hosts see each other and no others, have the same fingerprint, and agree with all their peers.
    pub(crate) fn wait_until_agreed(&self, hosts: &[usize]) {
        self.wait_until_equal(hosts);
        self.wait_on(hosts, "everybody to hear that all others have the same", |host| {
            self.status(host).is_some_and(|status| status.members == hosts.len() && status.converged)
        });
    }

    /// Waits until these hosts see each other and no others, and have the same fingerprint.
    pub(crate) fn wait_until_equal(&self, hosts: &[usize]) {
        let mut expected: Vec<String> = hosts.iter().map(|host| self.machines[*host].name.clone()).collect();
        expected.sort();
        let reference = hosts[0];
        self.wait_on(hosts, "everybody to see everybody, and to have the same", |host| {
            let (Some(first), Some(status)) = (self.status(reference), self.status(host)) else {
                return false;
            };
            status.members == hosts.len() && status.suspects == 0 && status.fingerprint == first.fingerprint
        });
        self.wait_on(hosts, "exactly the members that there are", |host| self.members(host) == expected);
    }

    /// Waits until these hosts see exactly these nodes.
    pub(crate) fn wait_for_names<'a>(
        &self,
        hosts: &[usize],
        nodes: impl IntoIterator<Item = &'a Registered>,
    ) {
        let mut expected: Vec<_> = nodes.into_iter().map(Registered::entry).collect();
        expected.sort();
        let what = format!("exactly {} Erlang nodes", expected.len());
        let differs = |host: usize| {
            let seen = self.names(host);
            let missing: Vec<_> = expected.iter().filter(|node| !seen.contains(node)).take(5).collect();
            let more: Vec<_> = seen.iter().filter(|node| !expected.contains(node)).take(5).collect();
            format!("{}; missing: {missing:?}, unexpected: {more:?}", self.summary(host))
        };
        self.wait_or_tell(hosts, &what, |host| self.names(host) == expected, differs);
    }

    /// Waits for a fixed time.
    ///
    /// The only fixed wait in these tests: for conditions that must hold (or events that must not happen) during that
    /// time, as with a host that is frozen for half a minute.
    pub(crate) fn let_pass(&self, span: Duration) {
        std::thread::sleep(span);
    }
}

impl Index<usize> for World {
    type Output = Machine;

    fn index(&self, host: usize) -> &Machine {
        &self.machines[host]
    }
}

impl IndexMut<usize> for World {
    fn index_mut(&mut self, host: usize) -> &mut Machine {
        &mut self.machines[host]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Ok(folder) = TempDir::with_prefix("pmd-cluster-test-") else { return };
        let folder = folder.keep();
        for (number, machine) in self.machines.iter().enumerate() {
            let log = machine.log();
            let _ = std::fs::write(folder.join(&machine.name), &log);
            if number >= SMALL {
                continue;
            }
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!("---- {} ({} lines)\n{tail}", machine.name, lines.len());
        }
        eprintln!("---- full logs: {}", folder.display());
    }
}
