//! One side of the comparison: hosts, a process on each, and the reports of these processes.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use pmd_bench::daemon;
use pmd_bench::fleet::Fleet;
use pmd_bench::options::name_of;
use pmd_bench::process::{Process, cpu_time};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::observation::{Event, Observation};
use crate::options::Side;
use crate::{pmd, serf};

/// The timeout for any operation, after which the side has failed.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The process of a host.
#[derive(Debug)]
struct Member {
    process: Process,
    observer: Option<JoinHandle<()>>,
}

/// Hosts and the processes that run there.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    side: Side,
    program: &'a Path,
    runtime: &'a Runtime,
    /// The processes, by host.
    members: Vec<Option<Member>>,
    fleet: Fleet,
    folder: TempDir,
    counting: watch::Sender<bool>,
    out: UnboundedSender<Observation>,
    observations: UnboundedReceiver<Observation>,
    /// The number of members that each host last reported, and the time of the report.
    seen: Vec<(usize, Instant)>,
}

impl<'a> Cluster<'a> {
    /// Starts `count` processes that do not know each other.
    pub(crate) fn start(
        side: Side,
        program: &'a Path,
        runtime: &'a Runtime,
        count: usize,
    ) -> Result<Cluster<'a>> {
        let (out, observations) = unbounded_channel();
        let mut cluster = Cluster {
            side,
            program,
            runtime,
            members: (0..count).map(|_| None).collect(),
            fleet: Fleet::new(count),
            folder: TempDir::new()?,
            counting: watch::Sender::new(true),
            out,
            observations,
            seen: vec![(0, Instant::now()); count],
        };
        for host in 0..count {
            cluster.launch(host)?;
        }
        for host in 0..count {
            cluster.wait_until_up(host)?;
        }
        cluster.observe()?;
        cluster.wait_for_members(&cluster.all(), 1, Instant::now())?;
        Ok(cluster)
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// All hosts.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.members.len()).collect()
    }

    /// The ids of all processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().flatten().map(|member| member.process.pid()).collect()
    }

    /// CPU time of all processes together.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(&self.pids())
    }

    fn home(&self, host: usize) -> PathBuf {
        self.folder.path().join(&self.fleet.sites()[host].name)
    }

    fn launch(&mut self, host: usize) -> Result<()> {
        let site = &self.fleet.sites()[host];
        let mut command = match self.side {
            Side::Pmd => daemon::command(self.program, &self.home(host))?,
            Side::Serf => serf::command(site),
        };
        let log = self.folder.path().join(format!("{}.log", site.name));
        let process = site.cell.run(move || Process::start(&mut command, &log))?;
        self.members[host] = Some(Member { process, observer: None });
        Ok(())
    }

    fn wait_until_up(&mut self, host: usize) -> Result<()> {
        let home = self.home(host);
        let site = &self.fleet.sites()[host];
        let member = self.members[host].as_mut().context("the process is not running")?;
        let answers = || match self.side {
            Side::Pmd => daemon::answers(&home),
            Side::Serf => serf::answers(site),
        };
        let up = member.process.wait_until(Duration::from_millis(2), answers);
        up.with_context(|| format!("{} on {}", name_of(&self.side), site.name))
    }

    /// Starts observing all processes that are not observed yet.
    pub(crate) fn observe(&mut self) -> Result<()> {
        for (host, member) in self.members.iter_mut().enumerate() {
            let site = &self.fleet.sites()[host];
            let Some(member) = member.as_mut().filter(|member| member.observer.is_none()) else { continue };
            let out = self.out.clone();
            member.observer = Some(match self.side {
                Side::Pmd => {
                    let home = self.folder.path().join(&site.name);
                    self.runtime.spawn(self.runtime.block_on(pmd::observe(&home, host, out))?)
                }
                Side::Serf => {
                    let observer = serf::observe(site, host, out, self.counting.subscribe());
                    self.runtime.spawn(self.runtime.block_on(observer)?)
                }
            });
        }
        Ok(())
    }

    /// Closes all connections to the processes.
    pub(crate) fn stop_observing(&mut self) {
        for member in self.members.iter_mut().flatten() {
            if let Some(observer) = member.observer.take() {
                observer.abort();
            }
        }
    }

    /// Turns counting of members on or off; changes are always observed.
    pub(crate) fn count_members(&self, on: bool) {
        self.counting.send_replace(on);
    }

    /// Makes these hosts join the first one, all at once, and returns how long each host took to see `count` members.
    pub(crate) fn join(&mut self, hosts: &[usize], count: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        let cluster = &*self;
        let joining = hosts.iter().map(|host| async move {
            let sites = cluster.fleet.sites();
            match cluster.side {
                Side::Pmd => pmd::join(&cluster.home(*host), &sites[0]).await,
                Side::Serf => serf::join(&sites[*host], &sites[0]).await,
            }
        });
        for joined in self.runtime.block_on(join_all(joining)) {
            joined?;
        }
        self.wait_for_members(&self.all(), count, begin)
    }

    /// Makes a change on a host, and returns how long each of the others took to report it.
    pub(crate) fn change(&mut self, host: usize, name: &str) -> Result<Vec<Duration>> {
        while let Ok(observation) = self.observations.try_recv() {
            self.note(&observation);
        }
        let site = &self.fleet.sites()[host];
        let (begin, _registration): (Instant, Option<TcpStream>) = match self.side {
            Side::Pmd => pmd::change(site, name).map(|(begin, stream)| (begin, Some(stream)))?,
            Side::Serf => (self.runtime.block_on(serf::change(site, name))?, None),
        };
        let mut took = vec![None; self.members.len()];
        let mut missing = self.members.iter().flatten().count() - 1;
        while missing > 0 {
            let observation = self.next(begin)?;
            let is_it = matches!(&observation.event, Event::Change(changed) if changed == name);
            if is_it && observation.host != host && took[observation.host].is_none() {
                took[observation.host] = Some(observation.at - begin);
                missing -= 1;
            }
        }
        Ok(took.into_iter().flatten().collect())
    }

    /// Kills the process of a host with SIGKILL, and returns how long each of the others took to notice.
    pub(crate) fn kill(&mut self, host: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        self.end(host)?;
        self.wait_for_loss(host, begin)
    }

    /// Disconnects a host, and returns how long each of the others took to notice.
    pub(crate) fn unplug(&mut self, host: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        self.fleet.plug(host, false);
        self.wait_for_loss(host, begin)
    }

    fn wait_for_loss(&mut self, lost: usize, begin: Instant) -> Result<Vec<Duration>> {
        let others: Vec<usize> = self.all().into_iter().filter(|host| *host != lost).collect();
        self.wait_for_members(&others, others.len(), begin)
    }

    fn end(&mut self, host: usize) -> Result<()> {
        let mut member = self.members[host].take().context("the process is not running")?;
        if let Some(observer) = member.observer.take() {
            observer.abort();
        }
        Ok(member.process.kill()?)
    }

    /// Reconnects a host, restarts its process and waits until all members see each other.
    pub(crate) fn bring_back(&mut self, host: usize) -> Result<()> {
        ensure!(host != 0, "the first host is the seed and must stay up");
        self.fleet.plug(host, true);
        if self.members[host].is_some() {
            self.end(host)?;
        }
        self.launch(host)?;
        self.wait_until_up(host)?;
        self.seen[host] = (0, Instant::now());
        self.observe()?;
        self.join(&[host], self.members.len()).map(drop)
    }

    /// Waits until all `observers` see `count` members, and returns how long each took since `begin`.
    pub(crate) fn wait_for_members(
        &mut self,
        observers: &[usize],
        count: usize,
        begin: Instant,
    ) -> Result<Vec<Duration>> {
        while observers.iter().any(|host| self.seen[*host].0 != count) {
            self.next(begin)?;
        }
        let seen = observers.iter().map(|host| self.seen[*host].1);
        Ok(seen.map(|at| at.saturating_duration_since(begin)).collect())
    }

    /// Waits until all have the same fingerprint, and returns the time since `begin`. serf has no fingerprints.
    pub(crate) fn wait_for_agreement(&self, begin: Instant) -> Result<Option<Duration>> {
        if self.side == Side::Serf {
            return Ok(None);
        }
        let homes: Vec<PathBuf> = self.all().into_iter().map(|host| self.home(host)).collect();
        loop {
            let prints = self.runtime.block_on(join_all(homes.iter().map(|home| pmd::fingerprint(home))));
            let took = begin.elapsed();
            if prints[0].is_some() && prints.iter().all(|print| *print == prints[0]) {
                return Ok(Some(took));
            }
            ensure!(took < TIMEOUT, "pmd's fingerprints still differ after {took:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn next(&mut self, begin: Instant) -> Result<Observation> {
        let left = (begin + TIMEOUT).saturating_duration_since(Instant::now());
        let observations = &mut self.observations;
        let next = self.runtime.block_on(async { tokio::time::timeout(left, observations.recv()).await });
        let seen = || self.seen.iter().map(|(count, _)| *count).collect::<Vec<_>>();
        let next =
            next.with_context(|| format!("{}: members seen by each: {:?}", name_of(&self.side), seen()))?;
        let observation = next.context("all observers have ended")?;
        self.note(&observation);
        Ok(observation)
    }

    fn note(&mut self, observation: &Observation) {
        if let Event::Members(count) = observation.event {
            self.seen[observation.host] = (count, observation.at);
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.stop_observing();
    }
}
