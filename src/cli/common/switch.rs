//! Code shared by `pmd takeover` and `pmd handover`: stop one port mapper, start the other, and wait for the nodes to
//! register with it.
//!
//! Nothing answers on the port for the few milliseconds between stop and start. If the new port mapper does not start,
//! the old one is started again.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::launch;
use super::output::{Output, note};
use super::runtime::with_progress;
use super::table::{Colour, Column, Table};
use super::target::Target;
use crate::base::text::count;
use crate::cli::args::Global;
use crate::takeover::owner::{self, Owner};
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::process::Process;
use crate::takeover::stock::Stock;
use crate::takeover::{ask, systemd};

/// Time limit for a port mapper to stop, to release the port, or to answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How often to check which nodes are back.
const POLL: Duration = Duration::from_millis(250);
/// The units of pmd, which replace those of stock epmd.
pub const PMD_UNITS: [&str; 2] = ["pmd.socket", "pmd.service"];

/// A port mapper on this host, with everything needed to stop and start it.
#[derive(Debug)]
pub enum Mapper {
    /// A stock epmd: its process if it is running, and the command to start it, if known.
    Epmd(Option<Owner>, Option<Stock>),
    /// systemd units that run a stock epmd.
    EpmdUnits(Vec<String>),
    /// A background pmd.
    Pmd {
        /// Its process id, if it is running.
        pid: Option<u32>,
        /// The addresses it listens on; empty for all addresses.
        bind: Vec<IpAddr>,
        /// Whether it accepts KILL and STOP while nodes are registered.
        relaxed: bool,
    },
    /// systemd units that run pmd.
    PmdUnits {
        /// Their names.
        units: Vec<String>,
        /// Whether to enable them on start and disable them on stop.
        enabled: bool,
    },
}

/// A switch from one port mapper to another.
#[derive(Debug)]
pub struct Switch<'a> {
    /// The global flags.
    pub global: &'a Global,
    /// The pmd that starts or stops.
    pub target: &'a Target,
    /// The port mapper that stops.
    pub from: Mapper,
    /// The port mapper that starts.
    pub to: Mapper,
    /// Units that will start the old port mapper at the next boot.
    pub enabled_units: Vec<String>,
}

/// A node that has to register with the new port mapper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Whether it has registered with the new port mapper.
    pub back: bool,
}

impl Node {
    /// A node that has not registered with the new port mapper yet.
    pub fn new(name: String, port: u16) -> Node {
        Node { name, port, back: false }
    }
}

/// The result of the command.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The port.
    pub port: u16,
    /// The program that now holds the port: `pmd` or `epmd`.
    pub held_by: &'static str,
    /// Whether this command switched the port mapper.
    pub changed: bool,
    /// The process that holds the port, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The nodes that were registered before the switch.
    pub nodes: Vec<Node>,
}

impl Mapper {
    fn program(&self) -> &'static str {
        match self {
            Mapper::Epmd(..) | Mapper::EpmdUnits(_) => "epmd",
            Mapper::Pmd { .. } | Mapper::PmdUnits { .. } => "pmd",
        }
    }

    /// The command that starts it.
    fn command(&self, target: &Target) -> String {
        match self {
            Mapper::Epmd(_, Some(stock)) => stock.to_string(),
            Mapper::Epmd(_, None) => "epmd -daemon".to_owned(),
            Mapper::EpmdUnits(units) => format!("systemctl start {}", units.join(" ")),
            Mapper::Pmd { bind, relaxed, .. } => {
                let flags = launch::flags(bind, *relaxed);
                let flags: String = flags.iter().map(|flag| format!(" {}", flag.display())).collect();
                format!("{}{flags}", target.command("start"))
            }
            Mapper::PmdUnits { units, .. } => format!("systemctl enable --now {}", units.join(" ")),
        }
    }

    async fn stop(&self, target: &Target) -> Result<()> {
        let refused = |error: io::Error| {
            let hint = match self {
                Mapper::Epmd(..) => {
                    "run the command as root, or as the user who runs epmd; nothing has been changed"
                }
                _ => "run the command as root; nothing has been changed",
            };
            Failure::new(Exit::Refused, format!("cannot stop {self}: {error}"), hint)
        };
        match self {
            Mapper::Epmd(None, _) => Ok(()),
            Mapper::Epmd(Some(owner), _) => {
                let process = Process::open(owner.pid).map_err(refused)?;
                // Checked only now, when the process is pinned by its pidfd.
                if !owner::owner(owner.pid).is_some_and(|now| now.is_epmd()) {
                    return Err(Failure::new(
                        Exit::Conflict,
                        format!("process {} is no longer an epmd", owner.pid),
                        "run the command again",
                    ));
                }
                process.terminate().map_err(refused)?;
                if with_progress("waiting for epmd to stop", process.ended(TIMEOUT)).await? {
                    return Ok(());
                }
                Err(Failure::new(
                    Exit::TimedOut,
                    format!("{owner} did not stop within {} s", TIMEOUT.as_secs()),
                    format!("kill it with `kill -9 {}`, then run `pmd start`", owner.pid),
                ))
            }
            Mapper::EpmdUnits(units) | Mapper::PmdUnits { units, .. } => {
                systemd::stop(units).map_err(refused)
            }
            Mapper::Pmd { .. } => launch::stop(target).await.map(drop),
        }
    }

    /// Starts it and waits until it answers. Returns its process id, if known.
    async fn start(&self, global: &Global, target: &Target) -> Result<Option<u32>> {
        let failed = |reason: String| {
            let hint = match self {
                Mapper::Epmd(..) | Mapper::EpmdUnits(_) => "choose another program with --epmd".to_owned(),
                _ => format!("see the log: journalctl --unit {}", PMD_UNITS[1]),
            };
            Failure::new(Exit::General, format!("{} did not start: {reason}", self.program()), hint)
        };
        let begun = match self {
            Mapper::Pmd { bind, relaxed, .. } => {
                let words = launch::words(global, target, bind, *relaxed);
                return Ok(Some(launch::start(target, &words).await?.pid));
            }
            Mapper::PmdUnits { units, enabled } => {
                let enabled = if *enabled { systemd::enable(units) } else { Ok(()) };
                enabled.and_then(|()| systemd::start(units))
            }
            Mapper::EpmdUnits(units) => systemd::start(units),
            Mapper::Epmd(_, Some(stock)) => stock.start(),
            Mapper::Epmd(_, None) => Err(io::Error::other("its program is unknown")),
        };
        begun.map_err(|error| failed(error.to_string()))?;
        if let Mapper::PmdUnits { .. } = self {
            let status = target.client().status().await;
            return status.map(|status| Some(status.pid)).map_err(|error| failed(error.to_string()));
        }
        if !wait_for_mapper(target.port).await {
            return Err(failed("it does not answer".to_owned()));
        }
        let holder = Port::look(target.port).await.owners.into_iter().find(Owner::is_epmd);
        Ok(holder.and_then(|owner| u32::try_from(owner.pid).ok()))
    }

    /// Prevents stopped units of pmd from starting at the next boot.
    fn disable(&self) -> io::Result<()> {
        match self {
            Mapper::PmdUnits { units, enabled: true } => systemd::disable(units),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mapper::Epmd(Some(owner), _) => owner.fmt(f),
            Mapper::Pmd { pid: Some(pid), .. } => write!(f, "pmd (pid {pid})"),
            Mapper::EpmdUnits(units) | Mapper::PmdUnits { units, .. } => {
                write!(f, "systemd's {}", units.join(" and "))
            }
            Mapper::Epmd(None, _) | Mapper::Pmd { pid: None, .. } => f.write_str(self.program()),
        }
    }
}

impl Switch<'_> {
    /// Prints the steps of [`Switch::run`].
    pub fn show(&self, nodes: &[Node], output: Output) -> Result<Exit> {
        let mut steps = vec![
            format!("stop {}, with {} registered", self.from, number_of(nodes)),
            format!("start {}: {}", self.to.program(), self.to.command(self.target)),
        ];
        if !nodes.is_empty() {
            if self.to.program() == "pmd" {
                steps.push("answer lookups for the nodes until they are back".to_owned());
            }
            steps.push(
                "wait until every node has registered again, within 2 s on OTP 23.3 and later".to_owned(),
            );
        }
        let plan = json!({ "dry_run": true, "steps": steps, "nodes": nodes });
        output.one(&plan, |out| {
            writeln!(out, "Nothing has been changed. Without --dry-run:")?;
            let mut steps = steps.iter().enumerate();
            steps.try_for_each(|(number, step)| writeln!(out, "  {}. {step}", number + 1))
        })?;
        Ok(Exit::Done)
    }

    /// Stops the old port mapper, starts the new one, and returns its process id, if known. Must not be interrupted: in
    /// between, the host has no port mapper.
    pub async fn run(&self, nodes: &[Node]) -> Result<Option<u32>> {
        self.from.stop(self.target).await?;
        note(&format!("stopped {}, with {} registered", self.from, number_of(nodes)));
        let started = async {
            wait_until_free(self.target.port).await?;
            self.from.disable().map_err(|error| {
                Failure::new(
                    Exit::Refused,
                    format!("cannot disable {}: {error}", self.from),
                    "run the command as root",
                )
            })?;
            self.to.start(self.global, self.target).await
        };
        match started.await {
            Ok(pid) => {
                let pid_text = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                note(&format!("started {}{pid_text}", self.to.program()));
                Ok(pid)
            }
            Err(failure) => Err(self.undo(failure).await),
        }
    }

    /// Starts the old port mapper again.
    async fn undo(&self, mut failure: Failure) -> Failure {
        if let Mapper::PmdUnits { units, .. } = &self.to {
            // Best effort: the original failure is reported in any case.
            let _ = systemd::stop(units).and_then(|()| self.to.disable());
        }
        let old = self.from.program();
        match self.from.start(self.global, self.target).await {
            Ok(_) => {
                failure.message += &format!("; {old} was started again, and its nodes will register again");
            }
            Err(again) => {
                failure.message += &format!("; starting {old} again failed too: {}", again.message);
                failure.hint = format!(
                    "start {old} manually; until then, no node can be found: {}",
                    self.from.command(self.target)
                );
            }
        }
        failure
    }

    /// Waits until the nodes have registered with the new port mapper, and prints the report.
    ///
    /// `look` marks the nodes that are back; it returns false if the port mapper does not answer.
    pub async fn conclude(
        &self,
        pid: Option<u32>,
        mut nodes: Vec<Node>,
        timeout: Duration,
        interrupt: &mut Interrupt,
        look: impl AsyncFnMut(&mut [Node]) -> bool,
        output: Output,
    ) -> Result<Exit> {
        let waited = wait_for_nodes(&mut nodes, timeout, interrupt, look).await;
        let (old, new) = (self.from.program(), self.to.program());
        let report = Report { port: self.target.port, held_by: new, changed: true, pid, nodes };
        let exit = report.print(output)?;
        if !self.enabled_units.is_empty() {
            note(&format!(
                "hint: systemd starts {old} again at the next boot; to keep {new}: systemctl disable {}",
                self.enabled_units.join(" ")
            ));
        }
        Ok(if waited == Exit::Interrupted { waited } else { exit })
    }
}

impl Report {
    /// Reports that the requested port mapper already holds the port.
    pub fn print_unchanged(
        port: u16,
        held_by: &'static str,
        pid: Option<u32>,
        holder: &str,
        output: Output,
    ) -> Result<Exit> {
        let report = Report { port, held_by, changed: false, pid, nodes: Vec::new() };
        output.one(&report, |out| writeln!(out, "port {port} is already held by {holder}"))?;
        Ok(Exit::Done)
    }

    /// Prints the nodes; returns `Unhealthy` if some are missing.
    fn print(&self, output: Output) -> Result<Exit> {
        let table = Table {
            columns: &[
                Column::new("NAME", |node: &Node| node.name.clone()),
                Column::new("PORT", |node| node.port.to_string()),
                Column::new("STATE", |node| if node.back { "back" } else { "missing" }.to_owned()),
            ],
            colour: |node| Some(if node.back { Colour::Green } else { Colour::Red }),
            empty: format!("Port {} is held by {}; no nodes were registered.", self.port, self.held_by),
        };
        output.list(self, &self.nodes, &table)?;
        let missing = self.nodes.iter().filter(|node| !node.back).count();
        if missing == 0 {
            return Ok(Exit::Done);
        }
        let have = if self.nodes.len() == 1 { "has" } else { "have" };
        note(&format!(
            "warning: {missing} of {} {have} not come back\nhint: nodes older than OTP 23.3 do not register again: \
             restart them; on a busy host, wait longer with --wait",
            count(self.nodes.len(), "node", "nodes")
        ));
        Ok(Exit::Unhealthy)
    }
}

/// The addresses to bind so that a port mapper listens where the other one did; empty means all addresses.
pub fn addresses_to_bind(listening: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let listening: Vec<IpAddr> = listening.collect();
    if listening.is_empty() || listening.iter().any(IpAddr::is_unspecified) {
        return Vec::new();
    }
    let external: Vec<IpAddr> = listening.into_iter().filter(|ip| !ip.is_loopback()).collect();
    if external.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { external }
}

fn number_of(nodes: &[Node]) -> String {
    if nodes.is_empty() { "no nodes".to_owned() } else { count(nodes.len(), "node", "nodes") }
}

/// Ctrl-C, checked only at points where stopping does not leave the host without a port mapper.
#[derive(Debug)]
pub struct Interrupt(Signal);

impl Interrupt {
    /// Installs a handler: from now on, Ctrl-C no longer terminates this process.
    pub fn new() -> Result<Interrupt> {
        Ok(Interrupt(signal(SignalKind::interrupt())?))
    }

    /// Whether Ctrl-C was pressed.
    pub fn received(&mut self) -> bool {
        self.0.recv().now_or_never().is_some()
    }

    async fn wait(&mut self) {
        self.0.recv().await;
    }
}

async fn wait_until_free(port: u16) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while owner::listening(port).is_ok_and(|sockets| !sockets.is_empty()) {
        if Instant::now() > deadline {
            let holder = Port::look(port).await.holder();
            return Err(Failure::new(
                Exit::Conflict,
                format!("port {port} is still held by {holder}"),
                "find out what starts it, and disable that first",
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits until a port mapper answers on loopback.
async fn wait_for_mapper(port: u16) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    while ask::names(([127, 0, 0, 1], port).into(), LOCAL).await.is_err() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

async fn wait_for_nodes(
    nodes: &mut [Node],
    timeout: Duration,
    interrupt: &mut Interrupt,
    mut look: impl AsyncFnMut(&mut [Node]) -> bool,
) -> Exit {
    let deadline = Instant::now() + timeout;
    let mut announced = false;
    loop {
        let all_back = look(nodes).await && nodes.iter().all(|node| node.back);
        if all_back || Instant::now() >= deadline {
            return Exit::Done;
        }
        if !announced {
            note("waiting for the nodes to come back ...");
            announced = true;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL.min(deadline - Instant::now())) => {}
            () = interrupt.wait() => return Exit::Interrupted,
        }
    }
}
