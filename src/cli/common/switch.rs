//! What `pmd takeover` and `pmd handover` share: one port mapper stops, the other starts, and the nodes move to it.
//!
//! Between the stop and the start nothing answers on the port; that takes some milliseconds. If the new port mapper does
//! not start, the old one is started again.

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

/// How long a port mapper may take to stop, to release the port, or to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often the port mapper is asked for the nodes that are back.
const POLL: Duration = Duration::from_millis(250);
/// The units of stock epmd. The socket comes first: it would start the service again.
pub const EPMD_UNITS: [&str; 2] = ["epmd.socket", "epmd.service"];
/// The units of pmd, which replace those of stock epmd.
pub const PMD_UNITS: [&str; 2] = ["pmd.socket", "pmd.service"];

/// A port mapper of this host, and how to stop and start it.
#[derive(Debug)]
pub enum Mapper {
    /// A stock epmd: its process if it runs, and how to start one like it if that is known.
    Epmd(Option<Owner>, Option<Stock>),
    /// Units of systemd that run a stock epmd.
    EpmdUnits(Vec<String>),
    /// A pmd in the background.
    Pmd {
        /// Its process, if it runs.
        pid: Option<u32>,
        /// The addresses that it listens on, if not on all.
        bind: Vec<IpAddr>,
        /// Whether it obeys KILL and STOP while nodes are registered.
        relaxed: bool,
    },
    /// Units of systemd that run pmd.
    PmdUnits {
        /// Their names.
        units: Vec<String>,
        /// Whether they are enabled when they are started, and disabled when they are stopped.
        enabled: bool,
    },
}

/// A change from one port mapper to the other.
#[derive(Debug)]
pub struct Switch<'a> {
    /// The flags of the command.
    pub global: &'a Global,
    /// The pmd that starts or stops.
    pub target: &'a Target,
    /// The port mapper that stops.
    pub from: Mapper,
    /// The port mapper that starts.
    pub to: Mapper,
    /// Units that will start the old port mapper again at the next boot.
    pub enabled_units: Vec<String>,
}

/// A node that moves.
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
    /// A node that has not come back yet.
    pub fn new(name: String, port: u16) -> Node {
        Node { name, port, back: false }
    }
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The port.
    pub port: u16,
    /// The program that holds it now: `pmd` or `epmd`.
    pub held_by: &'static str,
    /// Whether this command changed that.
    pub changed: bool,
    /// The process that holds the port, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The nodes that were registered before.
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
                // Checked now that its process id cannot be reused.
                if !owner::owner(owner.pid).is_some_and(|now| now.is_epmd()) {
                    return Err(Failure::new(
                        Exit::Conflict,
                        format!("the process {} has changed meanwhile", owner.pid),
                        "check again: pmd takeover --dry-run",
                    ));
                }
                process.terminate().map_err(refused)?;
                if with_progress("waiting for epmd to stop", process.ended(PATIENCE)).await? {
                    return Ok(());
                }
                Err(Failure::new(
                    Exit::TimedOut,
                    format!("{owner} did not stop within {} s", PATIENCE.as_secs()),
                    format!("kill it yourself: kill -9 {}; then run `pmd start`", owner.pid),
                ))
            }
            Mapper::EpmdUnits(units) | Mapper::PmdUnits { units, .. } => {
                systemd::stop(units).map_err(refused)
            }
            Mapper::Pmd { .. } => launch::stop(target).await.map(drop),
        }
    }

    /// Starts it and waits until it answers. Returns its process id if that is known.
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

    /// Keeps units of pmd that were stopped from starting again at the next boot.
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
    /// Shows what [`Switch::run`] would do.
    pub fn show(&self, nodes: &[Node], output: Output) -> Result<Exit> {
        let mut steps = vec![
            format!("stop {}, with {} registered", self.from, number_of(nodes)),
            format!("start {}: {}", self.to.program(), self.to.command(self.target)),
        ];
        if !nodes.is_empty() {
            if self.to.program() == "pmd" {
                steps.push("answer lookups of the nodes until they are back".to_owned());
            }
            steps.push(
                "wait until every node has registered again; OTP 23.3 and later do so within 2 s".to_owned(),
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

    /// Stops the old port mapper and starts the new one, whose process id it returns if that is known. Not to be
    /// interrupted: in between the host has no port mapper.
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
            // As far as possible: the failure is reported either way.
            let _ = systemd::stop(units).and_then(|()| self.to.disable());
        }
        let old = self.from.program();
        match self.from.start(self.global, self.target).await {
            Ok(_) => {
                failure.message += &format!("; {old} was started again, and its nodes come back to it");
            }
            Err(again) => {
                failure.message += &format!("; starting {old} again failed too: {}", again.message);
                failure.hint = format!(
                    "start {old} by hand, or no node can be found: {}",
                    self.from.command(self.target)
                );
            }
        }
        failure
    }

    /// Waits until the nodes have registered with the new port mapper, and reports.
    ///
    /// `look` marks the nodes that are back; it returns false if it cannot tell.
    pub async fn conclude(
        &self,
        pid: Option<u32>,
        mut nodes: Vec<Node>,
        patience: Duration,
        interrupt: &mut Interrupt,
        look: impl AsyncFnMut(&mut [Node]) -> bool,
        output: Output,
    ) -> Result<Exit> {
        let waited = wait_for_nodes(&mut nodes, patience, interrupt, look).await;
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
    /// Reports that the port is held by the right program already.
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

    /// Shows the nodes; ends with `Unhealthy` if some are missing.
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

/// The addresses that make a port mapper listen where this one does; none means all addresses.
pub fn addresses_to_bind(listening: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let listening: Vec<IpAddr> = listening.collect();
    if listening.is_empty() || listening.iter().any(IpAddr::is_unspecified) {
        return Vec::new();
    }
    let outside: Vec<IpAddr> = listening.into_iter().filter(|ip| !ip.is_loopback()).collect();
    if outside.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { outside }
}

fn number_of(nodes: &[Node]) -> String {
    if nodes.is_empty() { "no nodes".to_owned() } else { count(nodes.len(), "node", "nodes") }
}

/// Ctrl-C, which must not leave a host without a port mapper: it only counts where it is asked for.
#[derive(Debug)]
pub struct Interrupt(Signal);

impl Interrupt {
    /// From now on, Ctrl-C no longer ends this process.
    pub fn new() -> Result<Interrupt> {
        Ok(Interrupt(signal(SignalKind::interrupt())?))
    }

    /// Whether the user has pressed Ctrl-C.
    pub fn came(&mut self) -> bool {
        self.0.recv().now_or_never().is_some()
    }

    async fn comes(&mut self) {
        self.0.recv().await;
    }
}

async fn wait_until_free(port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while owner::listening(port).is_ok_and(|sockets| !sockets.is_empty()) {
        if Instant::now() > deadline {
            let holder = Port::look(port).await.holder();
            return Err(Failure::new(
                Exit::Conflict,
                format!("port {port} did not become free: it is held by {holder}"),
                "find out what starts it, and stop that first",
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits until a port mapper answers on this host's loopback.
async fn wait_for_mapper(port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
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
    patience: Duration,
    interrupt: &mut Interrupt,
    mut look: impl AsyncFnMut(&mut [Node]) -> bool,
) -> Exit {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let all_back = look(nodes).await && nodes.iter().all(|node| node.back);
        if all_back || Instant::now() >= deadline {
            return Exit::Done;
        }
        if !told {
            note("waiting for the nodes to come back ...");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL.min(deadline - Instant::now())) => {}
            () = interrupt.comes() => return Exit::Interrupted,
        }
    }
}
