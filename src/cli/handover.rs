//! `pmd handover`: the port goes back to a stock epmd, and the nodes with it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::args::{self, Global};
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Output, note};
use super::common::runtime::block_on_uninterrupted;
use super::common::switch::{
    Interrupt, Node, Plan, Report, WAIT_FOR_NODES, are, wait_for_mapper, wait_for_nodes, wait_until_free,
    were,
};
use super::common::target::{Target, absolute};
use super::start;
use super::status::nodes;
use super::stop::stop;
use super::takeover::{OWN_UNITS, UNITS};
use crate::base::text::count;
use crate::control::api::Status;
use crate::control::client::ClientError;
use crate::takeover::owner::Owner;
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::stock::{self, Stock};
use crate::takeover::{ask, systemd};

/// What the units of stock epmd start. The Debian package of pmd diverts it while it is installed.
const UNIT_PROGRAM: &str = "/usr/bin/epmd";

/// Gives the port back.
pub fn run(global: &Global, target: &Target, args: &args::Handover, output: Output) -> Result<Exit> {
    block_on_uninterrupted(Box::pin(hand_over(global, target, args, output)))
}

async fn hand_over(global: &Global, target: &Target, args: &args::Handover, output: Output) -> Result<Exit> {
    let mut interrupt = Interrupt::new()?;
    let client = target.client();
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return already(error, target, output).await,
    };
    let listed = explain(target, client.names(None).await).await?;
    let mut moved: Vec<Node> = listed
        .names
        .into_iter()
        .rev()
        .map(|name| Node { name: name.name, port: name.port, back: false })
        .collect();
    if moved.len() > stock::MAX_NODES && !args.force {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} are registered, and epmd can hold {} at most", nodes(moved.len()), stock::MAX_NODES),
            "end some of them first, or lose the rest with --force; nothing has been changed",
        ));
    }
    let managed = i32::try_from(status.pid).is_ok_and(|pid| systemd::runs(pid, &OWN_UNITS));
    let own_units = if managed { systemd::active(&OWN_UNITS) } else { Vec::new() };
    // Then they go by the names of epmd's units, which is to be their own again.
    let with_host = !own_units.is_empty() && systemd::enabled(&own_units);
    let next = choose(args, &status, target, !own_units.is_empty())?;
    if args.dry_run {
        return plan(&status, &own_units, &next, moved).print(output);
    }
    if status.services.registered > 0 {
        note(&format!(
            "warning: {} with pmd: epmd knows no services",
            count(status.services.registered, "service ends", "services end")
        ));
    }
    if interrupt.came() {
        return Ok(Exit::Interrupted);
    }

    // From here until epmd runs, Ctrl-C has to wait.
    end(target, &own_units).await?;
    note(&format!("ended pmd (pid {}), where {} registered", status.pid, were(moved.len())));
    let started = async {
        wait_until_free(target.port).await?;
        let begun = match &next {
            Next::Units(units) if with_host => {
                systemd::disable(&own_units).and_then(|()| systemd::start(units))
            }
            Next::Units(units) => systemd::start(units),
            Next::Program(stock) => stock.start(),
        };
        begun.map_err(|error| {
            Failure::new(
                Exit::General,
                format!("{next} cannot be started: {error}"),
                "choose another one with --epmd",
            )
        })?;
        if wait_for_mapper(target.port).await {
            return Ok(());
        }
        Err(Failure::new(
            Exit::General,
            format!("{next} was started, but does not answer"),
            "choose another one with --epmd",
        ))
    };
    if let Err(failure) = started.await {
        return Err(undo(failure, global, target, &status, &own_units, with_host).await);
    }
    note(&format!("started {next}"));
    let port = target.port;
    let waited =
        wait_for_nodes(&mut moved, args.wait, &mut interrupt, async |nodes| look(port, nodes).await).await;
    let holder = Port::look(port).await.owners.into_iter().find(Owner::is_epmd);
    let pid = holder.and_then(|owner| u32::try_from(owner.pid).ok());
    let report = Report { port, held_by: "epmd", changed: true, pid, nodes: moved };
    let exit = report.print(output)?;
    if with_host && matches!(next, Next::Program(_)) {
        note(&format!(
            "hint: systemd starts pmd again with the host; to keep epmd: systemctl disable {}",
            own_units.join(" ")
        ));
    }
    Ok(if waited == Exit::Interrupted { waited } else { exit })
}

/// If epmd holds the port already, there is nothing to do.
async fn already(error: ClientError, target: &Target, output: Output) -> Result<Exit> {
    let port = Port::look(target.port).await;
    if matches!(error, ClientError::NotReachable { .. })
        && port.mapper.is_some()
        && !port.owners.iter().any(Owner::is_pmd)
    {
        let pid = port.owners.first().and_then(|owner| u32::try_from(owner.pid).ok());
        let report = Report { port: target.port, held_by: "epmd", changed: false, pid, nodes: Vec::new() };
        output.one(&report, |out| {
            writeln!(out, "port {} is held by an epmd already: {}", target.port, port.holder())
        })?;
        return Ok(Exit::Done);
    }
    explain(target, Err::<Exit, _>(error)).await
}

/// What takes pmd's place.
#[derive(Debug)]
enum Next {
    Units(Vec<String>),
    Program(Stock),
}

impl std::fmt::Display for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Next::Units(units) => write!(f, "systemd's {}", units.join(" and ")),
            Next::Program(stock) => stock.fmt(f),
        }
    }
}

/// Whether a program is this one, by whatever name.
fn is_pmd(program: &Path) -> bool {
    program.canonicalize().ok().zip(std::env::current_exe().ok()).is_some_and(|(there, own)| there == own)
}

fn choose(args: &args::Handover, status: &Status, target: &Target, by_systemd: bool) -> Result<Next> {
    if by_systemd && args.epmd.is_none() && systemd::exists(UNITS[0]) && !is_pmd(Path::new(UNIT_PROGRAM)) {
        return Ok(Next::Units(vec![UNITS[0].to_owned()]));
    }
    let program: PathBuf = match &args.epmd {
        Some(program) if program.is_file() => absolute(program),
        Some(program) => {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no program {}", program.display()),
                "name the epmd of an Erlang runtime; nothing has been changed",
            ));
        }
        None => stock::installed().into_iter().next().ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                "no epmd is installed here",
                "install Erlang/OTP, or name the program with --epmd; nothing has been changed",
            )
        })?,
    };
    Ok(Next::Program(Stock::instead(program, target.port, &addresses(status), status.relaxed_command_check)))
}

/// The addresses that make a port mapper listen where this one does; none for all of them.
fn addresses(status: &Status) -> Vec<IpAddr> {
    let listening: Vec<IpAddr> = status.listening.iter().map(std::net::SocketAddr::ip).collect();
    if listening.is_empty() || listening.iter().any(IpAddr::is_unspecified) {
        return Vec::new();
    }
    let outside: Vec<IpAddr> = listening.into_iter().filter(|ip| !ip.is_loopback()).collect();
    if outside.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { outside }
}

fn plan(status: &Status, own_units: &[String], next: &Next, moved: Vec<Node>) -> Plan {
    let what = if own_units.is_empty() {
        format!("pmd (pid {})", status.pid)
    } else {
        format!("systemd's {}", own_units.join(" and "))
    };
    let mut steps =
        vec![format!("end {what}, where {} registered", are(moved.len())), format!("start {next}")];
    if !moved.is_empty() {
        steps.push(WAIT_FOR_NODES.to_owned());
    }
    Plan { dry_run: true, steps, nodes: moved }
}

async fn end(target: &Target, own_units: &[String]) -> Result<()> {
    if own_units.is_empty() {
        return stop(target).await.map(drop);
    }
    systemd::stop(own_units).map_err(|error| {
        Failure::new(Exit::Refused, error.to_string(), "run the command as root; nothing has been changed")
    })
}

/// Starts pmd again.
async fn undo(
    mut failure: Failure,
    global: &Global,
    target: &Target,
    status: &Status,
    own_units: &[String],
    with_host: bool,
) -> Failure {
    let again = if own_units.is_empty() {
        start::in_background(target, &words(global, target, status)).await.map(drop)
    } else {
        let enabled = if with_host { systemd::enable(own_units) } else { Ok(()) };
        enabled.and_then(|()| systemd::start(own_units)).map_err(Failure::from)
    };
    match again {
        Ok(()) => {
            failure.message =
                format!("{}; pmd was started again, and its nodes come back to it", failure.message);
        }
        Err(again) => {
            failure.message =
                format!("{}; and pmd could not be started again: {}", failure.message, again.message);
            failure.hint =
                format!("start it by hand, or every node stays invisible: {}", target.command("start"));
        }
    }
    failure
}

/// The words that start a pmd like the one that was ended.
fn words(global: &Global, target: &Target, status: &Status) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["start", "--foreground", "--port"].map(OsString::from).to_vec();
    words.push(target.port.to_string().into());
    words.extend(["--socket".into(), target.socket.clone().into_os_string()]);
    if let Some(file) = &global.config {
        words.extend(["--config".into(), absolute(file).into_os_string()]);
    }
    for address in addresses(status) {
        words.extend(["--bind".into(), address.to_string().into()]);
    }
    if status.relaxed_command_check {
        words.push("--relaxed-command-check".into());
    }
    words
}

/// Marks the nodes that epmd lists.
async fn look(port: u16, nodes: &mut [Node]) -> bool {
    let Ok(listing) = ask::names(([127, 0, 0, 1], port).into(), LOCAL).await else { return false };
    let listed: HashSet<&str> = listing.entries().map(|entry| entry.name).collect();
    for node in nodes {
        node.back = listed.contains(node.name.as_str());
    }
    true
}
