//! `pmd takeover`: a running epmd is replaced, and its nodes come over by themselves.
//!
//! Between the end of the one and the start of the other, nobody answers; that takes some milliseconds. After
//! it pmd answers for the nodes that were registered, so that look-ups find them while they come back. If pmd
//! does not start, the other one is started again.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::{StreamExt, stream};

use super::args::{self, Global, Start};
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Output, note};
use super::common::runtime::{block_on_uninterrupted, with_progress};
use super::common::switch::{
    Interrupt, Node, PATIENCE, Plan, Report, WAIT_FOR_NODES, are, wait_for_mapper, wait_for_nodes,
    wait_until_free, were,
};
use super::common::target::{self, Target};
use super::start;
use crate::config::paths::Paths;
use crate::config::settings::{PORT, Settings};
use crate::control::api::{AdoptedName, Status};
use crate::control::client::Client;
use crate::takeover::owner::Owner;
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::process::Process;
use crate::takeover::stock::Stock;
use crate::takeover::{ask, systemd};
use pmd_epmd::kernel::sockets::Socket;

/// Questions that are asked at once. Stock answers one after the other anyway.
const QUESTIONS: usize = 32;
/// The units of stock epmd, the socket first: it would start the service again.
pub const UNITS: [&str; 2] = ["epmd.socket", "epmd.service"];
/// The units that stand in for those of stock epmd.
pub(super) const OWN_UNITS: [&str; 2] = ["pmd.socket", "pmd.service"];

/// Replaces a running epmd.
pub fn run(global: &Global, args: &args::Takeover, output: Output) -> Result<Exit> {
    let settings = target::settings(global, &Start::default())?;
    let target = Target::of_settings(global, &settings);
    block_on_uninterrupted(Box::pin(take_over(global, &settings, &target, args, output)))
}

/// How the running epmd is ended, and started again if need be.
#[derive(Debug)]
enum Running {
    /// systemd does both.
    Units(Vec<String>),
    /// It is a process.
    Process { owner: Owner, again: Option<Stock> },
}

async fn take_over(
    global: &Global,
    settings: &Settings,
    target: &Target,
    args: &args::Takeover,
    output: Output,
) -> Result<Exit> {
    let mut interrupt = Interrupt::new()?;
    let client = target.client();
    if let Ok(status) = client.status().await {
        let report = Report {
            port: target.port,
            held_by: "pmd",
            changed: false,
            pid: Some(status.pid),
            nodes: Vec::new(),
        };
        output.one(&report, |out| {
            writeln!(out, "pmd holds port {} already (pid {})", target.port, status.pid)
        })?;
        return Ok(Exit::Done);
    }
    let port = Port::look(target.port).await;
    let running = find_running(&port, target)?;
    let mapper = port.mapper.ok_or_else(|| port.conflict(target))?;
    let names = with_progress("asking the running epmd", registered(mapper)).await?;
    let mut moved: Vec<Node> =
        names.iter().map(|name| Node { name: name.name.clone(), port: name.port, back: false }).collect();
    let more = more_words(settings, &port.sockets, &running);
    let own_units = own_units(settings, target, &more);
    if args.dry_run {
        return plan(&running, own_units.as_deref(), &more, target, moved).print(output);
    }
    if interrupt.came() {
        return Ok(Exit::Interrupted);
    }

    // From here until pmd runs, Ctrl-C has to wait.
    end(&running).await?;
    note(&format!("ended {}, where {} registered", running, were(names.len())));
    let started = async {
        wait_until_free(target.port).await?;
        match &own_units {
            Some(units) => in_units(units, &client).await,
            None => {
                let words = start::words(global, &Start::default(), settings, &more);
                start::in_background(target, &words).await
            }
        }
    };
    let status = match started.await {
        Ok(status) => status,
        Err(failure) => return Err(undo(failure, &running, target).await),
    };
    note(&format!("started pmd (pid {})", status.pid));
    if let Err(error) = client.adopt(&names).await {
        note(&format!("warning: until they are back, the nodes cannot be looked up: {error}"));
    }
    let waited =
        wait_for_nodes(&mut moved, args.wait, &mut interrupt, async |nodes| look(&client, nodes).await).await;
    let report =
        Report { port: target.port, held_by: "pmd", changed: true, pid: Some(status.pid), nodes: moved };
    let exit = report.print(output)?;
    if let (None, Running::Units(units)) = (&own_units, &running) {
        note(&format!(
            "hint: systemd starts epmd again with the host; to keep pmd: systemctl disable {}",
            units.join(" ")
        ));
    }
    Ok(if waited == Exit::Interrupted { waited } else { exit })
}

/// What runs there, if it is an epmd that may be ended.
fn find_running(port: &Port, target: &Target) -> Result<Running> {
    if port.is_free() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is nothing to take over: nobody listens on port {}", target.port),
            format!("just start pmd: {}", target.command("start")),
        ));
    }
    if port.mapper.is_none() {
        return Err(port.conflict(target));
    }
    if port.owners.iter().any(|owner| systemd::runs(owner.pid, &UNITS)) {
        let units = systemd::active(&UNITS);
        if !units.is_empty() {
            return Ok(Running::Units(units));
        }
    }
    match port.owners.as_slice() {
        [] => Err(Failure::new(
            Exit::Refused,
            format!("port {} is held by {}, which this user may not end", target.port, port.holder()),
            "run the command as root, or as the user who runs epmd; if it runs in a container, end it there",
        )),
        [owner] if owner.is_epmd() => {
            Ok(Running::Process { owner: owner.clone(), again: Stock::like(owner) })
        }
        owners if owners.iter().any(Owner::is_pmd) => Err(port.conflict(target)),
        _ => Err(Failure::new(
            Exit::Conflict,
            format!("port {} is held by {}, and not by an epmd alone", target.port, port.holder()),
            "end that yourself, and then run `pmd start`",
        )),
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Running::Units(units) => write!(f, "systemd's {}", units.join(" and ")),
            Running::Process { owner, .. } => owner.fmt(f),
        }
    }
}

/// Everything that is registered, as it was registered.
async fn registered(mapper: SocketAddr) -> Result<Vec<AdoptedName>> {
    let listing = ask::names(mapper, PATIENCE).await.map_err(|error| {
        Failure::new(
            Exit::NotReachable,
            format!("the epmd on {mapper} does not say what is registered: {error}"),
            "try again; nothing has been changed",
        )
    })?;
    let entries: Vec<(String, u16)> =
        listing.entries().map(|entry| (entry.name.to_owned(), entry.port)).collect();
    let names = stream::iter(entries).map(async |(name, port)| {
        // A name that cannot be looked up was listed all the same, so that much is known.
        let found = ask::port_please(mapper, &name, LOCAL).await.ok().flatten();
        match found {
            Some(found) => AdoptedName {
                name,
                port: found.port,
                node_type: found.node_type,
                protocol: found.protocol,
                highest_version: found.highest_version,
                lowest_version: found.lowest_version,
                extra: found.extra.to_vec(),
            },
            None => AdoptedName {
                name,
                port,
                node_type: 77,
                protocol: 0,
                highest_version: 6,
                lowest_version: 5,
                extra: Vec::new(),
            },
        }
    });
    // Kept in order: the newest is told first, and has to be registered last to be the newest again.
    let mut names: Vec<AdoptedName> = names.buffered(QUESTIONS).collect().await;
    names.reverse();
    Ok(names)
}

/// What pmd has to be told so that it is no more open than the one before, unless its own settings say so.
fn more_words(settings: &Settings, sockets: &[Socket], running: &Running) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let everywhere = sockets.iter().any(|socket| socket.local.ip().is_unspecified());
    if settings.bind.is_empty() && !everywhere {
        let outside = sockets.iter().map(|socket| socket.local.ip()).filter(|ip| !ip.is_loopback());
        let mut addresses: Vec<IpAddr> = outside.collect();
        if addresses.is_empty() {
            addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        words.extend(addresses.iter().flat_map(|ip| ["--bind".into(), ip.to_string().into()]));
    }
    if let Running::Process { again: Some(stock), .. } = running
        && stock.is_relaxed()
        && !settings.relaxed_command_check
    {
        words.push("--relaxed-command-check".into());
    }
    words
}

/// pmd's own units, if they are there and a pmd with these settings may run in them: they know nothing of flags and
/// variables, and their socket listens on all addresses.
fn own_units(settings: &Settings, target: &Target, more: &[OsString]) -> Option<Vec<String>> {
    let system = Paths::of_system();
    let theirs = target.port == PORT
        && settings.socket == system.socket(PORT)
        && settings.config_file == Some(system.config_file())
        && settings.bind.is_empty()
        && more.is_empty();
    (theirs && OWN_UNITS.iter().all(|unit| systemd::exists(unit)))
        .then(|| OWN_UNITS.map(ToString::to_string).to_vec())
}

/// Starts pmd in its units, now and with the host, and returns how it is. If it does not answer, all of that is taken
/// back.
async fn in_units(units: &[String], client: &Client) -> Result<Status> {
    let status = match systemd::enable(units).and_then(|()| systemd::start(units)) {
        Ok(()) => client.status().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    status.map_err(|error| {
        // As far as it can be; what went wrong is told either way.
        let _ = systemd::stop(units).and_then(|()| systemd::disable(units));
        Failure::new(
            Exit::General,
            format!("pmd does not start: {error}"),
            format!("see why: journalctl --unit {}", OWN_UNITS[1]),
        )
    })
}

fn plan(
    running: &Running,
    own_units: Option<&[String]>,
    more: &[OsString],
    target: &Target,
    moved: Vec<Node>,
) -> Plan {
    let words: String = more.iter().map(|word| format!(" {}", word.display())).collect();
    let how = match own_units {
        Some(units) => format!("systemctl enable --now {}", units.join(" ")),
        None => format!("{}{words}", target.command("start")),
    };
    let mut steps = vec![
        format!("end {running}, where {} registered", are(moved.len())),
        format!("start pmd on port {} ({how})", target.port),
    ];
    if !moved.is_empty() {
        steps.push("answer look-ups for the nodes while they come back".to_owned());
        steps.push(WAIT_FOR_NODES.to_owned());
    }
    Plan { dry_run: true, steps, nodes: moved }
}

async fn end(running: &Running) -> Result<()> {
    let refused = |error: &std::io::Error| {
        Failure::new(
            Exit::Refused,
            format!("cannot end {running}: {error}"),
            "run the command as root, or as the user who runs epmd; nothing has been changed",
        )
    };
    match running {
        Running::Units(units) => systemd::stop(units).map_err(|error| refused(&error)),
        Running::Process { owner, .. } => {
            let process = Process::open(owner.pid).map_err(|error| refused(&error))?;
            // Looked at again now that its number cannot be given to another process any more.
            if !crate::takeover::owner::owner(owner.pid).is_some_and(|now| now.is_epmd()) {
                return Err(Failure::new(
                    Exit::Conflict,
                    format!("{owner} is not what it was a moment ago"),
                    "look again: pmd takeover --dry-run",
                ));
            }
            process.terminate().map_err(|error| refused(&error))?;
            if with_progress("waiting for epmd to end", process.ended(PATIENCE)).await? {
                return Ok(());
            }
            Err(Failure::new(
                Exit::TimedOut,
                format!("{owner} has not ended within {} s", PATIENCE.as_secs()),
                format!(
                    "see what it is doing, or end it yourself: kill -9 {}; then run `pmd start`",
                    owner.pid
                ),
            ))
        }
    }
}

/// Starts what was ended again.
async fn undo(mut failure: Failure, running: &Running, target: &Target) -> Failure {
    let (again, how) = match running {
        Running::Units(units) => (systemd::start(units), format!("systemctl start {}", units.join(" "))),
        Running::Process { again: Some(stock), .. } => (stock.start(), stock.to_string()),
        Running::Process { again: None, .. } => {
            (Err(std::io::Error::other("its program is not known")), "epmd -daemon".to_owned())
        }
    };
    let outcome = match again {
        Ok(()) if wait_for_mapper(target.port).await => Ok(()),
        Ok(()) => Err("it does not answer".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => {
            failure.message =
                format!("{}; epmd was started again, and its nodes come back to it", failure.message);
        }
        Err(reason) => {
            failure.message = format!("{}; and epmd could not be started again: {reason}", failure.message);
            failure.hint = format!("start it by hand, or every node stays invisible: {how}");
        }
    }
    failure
}

/// Marks the nodes that pmd holds a connection of.
async fn look(client: &Client, nodes: &mut [Node]) -> bool {
    let Ok(adopted) = client.names(Some(true)).await else { return false };
    let adopted: HashSet<String> = adopted.names.into_iter().map(|name| name.name).collect();
    // The long list only once it can bring news.
    if nodes.iter().all(|node| node.back || adopted.contains(&node.name)) {
        return true;
    }
    let Ok(held) = client.names(Some(false)).await else { return false };
    let held: HashSet<String> = held.names.into_iter().map(|name| name.name).collect();
    for node in nodes {
        node.back = held.contains(&node.name);
    }
    true
}
