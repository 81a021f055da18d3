//! One side of the comparison: hosts, a process on each, and what these tell.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fleet::Fleet;
use crate::{pmd, serf};

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(180);

/// Who runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Pmd,
    Serf,
}

impl Who {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Who::Pmd => "pmd",
            Who::Serf => "serf",
        }
    }
}

/// What one process told, and when that was read.
#[derive(Debug)]
pub(crate) struct Sighting {
    pub(crate) place: usize,
    pub(crate) at: Instant,
    pub(crate) sight: Sight,
}

/// What a process tells.
#[derive(Debug)]
pub(crate) enum Sight {
    /// So many members, itself included.
    Members(usize),
    /// The change of this name.
    Change(String),
}

/// What keeps a change in force.
#[derive(Debug)]
pub(crate) struct Change {
    _registration: Option<TcpStream>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    observer: Option<JoinHandle<()>>,
}

/// A fleet and what runs there.
#[derive(Debug)]
pub(crate) struct Team<'a> {
    who: Who,
    program: &'a Path,
    runtime: &'a Runtime,
    processes: Vec<Option<Process>>,
    fleet: Fleet,
    folder: TempDir,
    counting: watch::Sender<bool>,
    out: UnboundedSender<Sighting>,
    sightings: UnboundedReceiver<Sighting>,
    /// What each told last about its members, and when.
    members: Vec<(usize, Instant)>,
}

impl<'a> Team<'a> {
    /// Starts `count` processes that do not know of each other.
    pub(crate) fn start(who: Who, program: &'a Path, runtime: &'a Runtime, count: usize) -> Result<Team<'a>> {
        let (out, sightings) = unbounded_channel();
        let mut team = Team {
            who,
            program,
            runtime,
            processes: (0..count).map(|_| None).collect(),
            fleet: Fleet::new(count),
            folder: TempDir::new()?,
            counting: watch::Sender::new(true),
            out,
            sightings,
            members: vec![(0, Instant::now()); count],
        };
        for place in 0..count {
            team.launch(place)?;
        }
        for place in 0..count {
            team.wait_until_up(place)?;
        }
        team.observe()?;
        team.wait_for_members(&team.all(), 1, Instant::now())?;
        Ok(team)
    }

    pub(crate) fn who(&self) -> Who {
        self.who
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The places of all.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.processes.len()).collect()
    }

    /// The places of all but one.
    pub(crate) fn all_but(&self, one: usize) -> Vec<usize> {
        self.all().into_iter().filter(|place| *place != one).collect()
    }

    /// The process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(|process| process.child.id()).collect()
    }

    fn home(&self, place: usize) -> PathBuf {
        self.folder.path().join(&self.fleet.sites()[place].name)
    }

    fn launch(&mut self, place: usize) -> Result<()> {
        let site = &self.fleet.sites()[place];
        let mut command = match self.who {
            Who::Pmd => pmd::command(self.program, &self.home(place))?,
            Who::Serf => serf::command(site),
        };
        let log = File::create(self.folder.path().join(format!("{}.log", site.name)))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = site.cell.run(move || command.spawn()).with_context(|| self.who.name().to_owned())?;
        self.processes[place] = Some(Process { child, observer: None });
        Ok(())
    }

    fn wait_until_up(&mut self, place: usize) -> Result<()> {
        let begin = Instant::now();
        loop {
            let up = match self.who {
                Who::Pmd => pmd::answers(&self.home(place)),
                Who::Serf => serf::answers(&self.fleet.sites()[place]),
            };
            if up {
                return Ok(());
            }
            let child = &mut self.processes[place].as_mut().context("a process that was launched")?.child;
            let ended = child.try_wait()?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let name = &self.fleet.sites()[place].name;
                let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")));
                bail!(
                    "{} does not answer on {name} ({ended:?}): {}",
                    self.who.name(),
                    log.unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Listens to every process that nobody listens to.
    pub(crate) fn observe(&mut self) -> Result<()> {
        for place in self.all() {
            let site = &self.fleet.sites()[place];
            let home = self.folder.path().join(&site.name);
            let Some(process) = &mut self.processes[place] else { continue };
            if process.observer.is_none() {
                let out = self.out.clone();
                let task = match self.who {
                    Who::Pmd => self.runtime.spawn(self.runtime.block_on(pmd::observe(&home, place, out))?),
                    Who::Serf => {
                        let observer = serf::observe(site, place, out, self.counting.subscribe());
                        self.runtime.spawn(self.runtime.block_on(observer)?)
                    }
                };
                process.observer = Some(task);
            }
        }
        Ok(())
    }

    /// Leaves all processes alone.
    pub(crate) fn look_away(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            if let Some(observer) = process.observer.take() {
                observer.abort();
            }
        }
    }

    /// Whether members are counted from now on; changes are told in any case.
    pub(crate) fn count_members(&self, on: bool) {
        self.counting.send_replace(on);
    }

    /// Makes these join the first one, all at once; returns how long each of all took to see `count` members.
    pub(crate) fn join(&mut self, places: &[usize], count: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        let team = &*self;
        let joining = places.iter().map(|place| async move {
            let sites = team.fleet.sites();
            match team.who {
                Who::Pmd => pmd::join(&team.home(*place), &sites[0]).await,
                Who::Serf => serf::join(&sites[*place], &sites[0]).await,
            }
        });
        for joined in self.runtime.block_on(futures_util::future::join_all(joining)) {
            joined?;
        }
        self.wait_for_members(&self.all(), count, begin)
    }

    /// Changes something at `place`; returns how long each of the others took to tell.
    pub(crate) fn change(&mut self, place: usize, name: &str) -> Result<(Change, Vec<Duration>)> {
        while let Ok(sighting) = self.sightings.try_recv() {
            self.note(&sighting);
        }
        let site = &self.fleet.sites()[place];
        let (begin, registration) = match self.who {
            Who::Pmd => pmd::change(site, name).map(|(begin, stream)| (begin, Some(stream)))?,
            Who::Serf => (self.runtime.block_on(serf::change(site, name))?, None),
        };
        let mut seen = vec![None; self.processes.len()];
        let mut missing = self.processes.iter().flatten().count() - 1;
        while missing > 0 {
            let sighting = self.next(begin)?;
            if matches!(&sighting.sight, Sight::Change(seen) if seen == name)
                && sighting.place != place
                && seen[sighting.place].is_none()
            {
                seen[sighting.place] = Some(sighting.at - begin);
                missing -= 1;
            }
        }
        Ok((Change { _registration: registration }, seen.into_iter().flatten().collect()))
    }

    /// SIGKILL; returns how long each of the others took to know.
    pub(crate) fn kill(&mut self, place: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        self.end(place)?;
        self.wait_for_members(&self.all_but(place), self.processes.len() - 1, begin)
    }

    /// Pulls a cable; returns how long each of the others took to know.
    pub(crate) fn unplug(&mut self, place: usize) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        self.fleet.plug(place, false);
        self.wait_for_members(&self.all_but(place), self.processes.len() - 1, begin)
    }

    fn end(&mut self, place: usize) -> Result<()> {
        let mut process = self.processes[place].take().context("a process")?;
        if let Some(observer) = process.observer.take() {
            observer.abort();
        }
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// Plugs a host in, starts its process anew and waits until everybody sees everybody.
    pub(crate) fn bring_back(&mut self, place: usize) -> Result<()> {
        self.fleet.plug(place, true);
        if self.processes[place].is_some() {
            self.end(place)?;
        }
        self.launch(place)?;
        self.wait_until_up(place)?;
        self.members[place] = (0, Instant::now());
        self.observe()?;
        // The first one is whom others join: it needs another seed, and those are called by their number.
        ensure!(place != 0, "the first host stays up");
        self.join(&[place], self.processes.len()).map(drop)
    }

    /// How long each of `observers` took from `begin` to see `count` members, once all see that many.
    pub(crate) fn wait_for_members(
        &mut self,
        observers: &[usize],
        count: usize,
        begin: Instant,
    ) -> Result<Vec<Duration>> {
        while observers.iter().any(|place| self.members[*place].0 != count) {
            self.next(begin)?;
        }
        let seen = observers.iter().map(|place| self.members[*place].1);
        Ok(seen.map(|at| at.saturating_duration_since(begin)).collect())
    }

    /// Waits until all have the same fingerprint, if they have one; returns how long after `begin` that was.
    pub(crate) fn wait_for_agreement(&self, begin: Instant) -> Result<Option<Duration>> {
        if self.who == Who::Serf {
            return Ok(None);
        }
        loop {
            let homes: Vec<PathBuf> = self.all().into_iter().map(|place| self.home(place)).collect();
            let prints = homes.iter().map(|home| pmd::fingerprint(home));
            let prints = self.runtime.block_on(futures_util::future::join_all(prints));
            let took = begin.elapsed();
            if prints[0].is_some() && prints.iter().all(|print| *print == prints[0]) {
                return Ok(Some(took));
            }
            ensure!(took < PATIENCE, "the fingerprints of pmd are not equal after {took:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn next(&mut self, begin: Instant) -> Result<Sighting> {
        let left = (begin + PATIENCE).saturating_duration_since(Instant::now());
        let sightings = &mut self.sightings;
        let next = self.runtime.block_on(async { tokio::time::timeout(left, sightings.recv()).await });
        let counts: Vec<usize> = self.members.iter().map(|(count, _)| *count).collect();
        let next =
            next.with_context(|| format!("{}: members as each sees them: {counts:?}", self.who.name()))?;
        let sighting = next.context("the channel stands as long as the team")?;
        self.note(&sighting);
        Ok(sighting)
    }

    fn note(&mut self, sighting: &Sighting) {
        if let Sight::Members(count) = sighting.sight {
            self.members[sighting.place] = (count, sighting.at);
        }
    }
}

impl Drop for Team<'_> {
    fn drop(&mut self) {
        self.look_away();
        for mut process in self.processes.drain(..).flatten() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
