//! Hosts whose pmd daemons form a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmd::control::api::Join;
use pmd::control::client::Client;
use pmd_bench::daemon;
use pmd_bench::fleet::{Fleet, Site};
use pmd_bench::process::Process;
use tokio::runtime::Runtime;

use crate::options::Plan;

/// The timeout for any operation, after which the run fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Hosts and their daemons.
#[derive(Debug)]
pub(crate) struct Hosts {
    daemons: Vec<Process>,
    fleet: Fleet,
    homes: Vec<PathBuf>,
}

impl Hosts {
    /// Two hosts that reach each other directly.
    pub(crate) fn direct(plan: &Plan, runtime: &Runtime, folder: &Path) -> Result<Hosts> {
        Hosts::start(plan, runtime, Fleet::new(2), &folder.join("direct"))
    }

    /// Two hosts that reach each other only through a third, the relay.
    pub(crate) fn relayed(plan: &Plan, runtime: &Runtime, folder: &Path) -> Result<Hosts> {
        let fleet = Fleet::new(3);
        fleet.cut(&[0], &[1]);
        Hosts::start(plan, runtime, fleet, &folder.join("relayed"))
    }

    fn start(plan: &Plan, runtime: &Runtime, fleet: Fleet, folder: &Path) -> Result<Hosts> {
        let homes: Vec<PathBuf> = fleet.sites().iter().map(|site| folder.join(&site.name)).collect();
        let mut hosts = Hosts { daemons: Vec::new(), fleet, homes };
        for (host, (site, home)) in hosts.fleet.sites().iter().zip(&hosts.homes).enumerate() {
            let mut command = daemon::command(&plan.pmd, home)?;
            if host == 2 {
                fs::write(home.join("pmd.toml"), "relay = true\n")?;
            }
            let log = home.join("log");
            hosts.daemons.push(site.cell.run(move || Process::start(&mut command, &log))?);
        }
        for (process, home) in hosts.daemons.iter_mut().zip(&hosts.homes) {
            process.wait_until(Duration::from_millis(2), || daemon::answers(home))?;
        }
        let (seed, others) = hosts.fleet.sites().split_last().context("hosts")?;
        for host in 0..others.len() {
            let join = Join { addresses: vec![seed.ip.to_string()], timeout_ms: Some(30_000) };
            let joined = runtime.block_on(hosts.client(host).join(&join));
            joined.with_context(|| format!("joining {}", seed.ip))?;
        }
        for (host, other) in [(0, "h2"), (1, "h1")] {
            wait("the other host to have an alias", || {
                let list = runtime.block_on(hosts.client(host).tunnels())?;
                Ok(list.aliases.iter().any(|alias| alias.host == other))
            })?;
        }
        Ok(hosts)
    }

    pub(crate) fn site(&self, host: usize) -> &Site {
        &self.fleet.sites()[host]
    }

    /// The folder of a host's files.
    pub(crate) fn home(&self, host: usize) -> &Path {
        &self.homes[host]
    }

    /// A client of the API of a host's daemon.
    pub(crate) fn client(&self, host: usize) -> Client {
        Client::new(daemon::socket(&self.homes[host])).with_timeout(TIMEOUT)
    }

    /// The process ids of the daemons.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.daemons.iter().map(Process::pid)
    }
}

/// Waits until a condition holds.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < TIMEOUT, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
