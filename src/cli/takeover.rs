//! `pmd takeover`: pmd replaces a running epmd, and the nodes register with it.
//!
//! Until they have, pmd answers lookups for the nodes that were registered with epmd.

use std::collections::HashSet;
use std::net::SocketAddr;

use futures_util::{StreamExt, stream};

use super::args::{self, Global, Start};
use super::common::diagnosis::port_conflict;
use super::common::runtime::block_on_uninterrupted;
use super::common::switch::{Interrupt, Mapper, Node, PMD_UNITS, Report, Switch, TIMEOUT, addresses_to_bind};
use super::common::{Exit, Failure, Output, Result, Target, note, target, with_progress};
use crate::config::paths::Paths;
use crate::config::settings::{PORT, Settings};
use crate::control::api::AdoptedName;
use crate::control::client::Client;
use crate::takeover::owner::Owner;
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::stock::Stock;
use crate::takeover::systemd::EPMD_UNITS;
use crate::takeover::{ask, systemd};

/// Concurrent lookups. Stock epmd processes them sequentially anyway.
const LOOKUPS: usize = 32;

/// Replaces a running epmd.
pub fn run(global: &Global, args: &args::Takeover, output: Output) -> Result<Exit> {
    let settings = target::settings(global, &Start::default())?;
    let target = Target::of_settings(global, &settings);
    block_on_uninterrupted(Box::pin(take_over(global, &settings, &target, args, output)))
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
        let holder = format!("pmd (pid {})", status.pid);
        return Report::print_unchanged(target.port, "pmd", Some(status.pid), &holder, output);
    }
    let port = Port::look(target.port).await;
    let from = find_running(&port, target)?;
    let mapper = port.mapper.ok_or_else(|| port_conflict(&port, target))?;
    let names = with_progress("asking the running epmd", registered(mapper)).await?;
    let nodes: Vec<Node> = names.iter().map(|name| Node::new(name.name.clone(), name.port)).collect();
    let to = successor(settings, target, &port, &from);
    let enabled_units = match (&from, &to) {
        (Mapper::EpmdUnits(units), Mapper::Pmd { .. }) => units.clone(),
        _ => Vec::new(),
    };
    let switch = Switch { global, target, from, to, enabled_units };
    if args.dry_run {
        return switch.show(&nodes, output);
    }
    if interrupt.received() {
        return Ok(Exit::Interrupted);
    }
    let pid = switch.run(&nodes).await?;
    if let Err(error) = client.adopt(&names).await {
        note(&format!("warning: lookups will not find the nodes until they are back: {error}"));
    }
    let look = async |nodes: &mut [Node]| look(&client, nodes).await;
    switch.conclude(pid, nodes, args.wait, &mut interrupt, look, output).await
}

/// The port mapper on the port, if it is an epmd that this user can stop.
fn find_running(port: &Port, target: &Target) -> Result<Mapper> {
    if port.is_free() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("nothing to take over: nothing is listening on port {}", target.port),
            format!("start pmd instead: {}", target.command("start")),
        ));
    }
    if port.mapper.is_none() || port.foreign.is_some() {
        return Err(port_conflict(port, target));
    }
    if port.owners.iter().any(|owner| systemd::runs(owner.pid, &EPMD_UNITS)) {
        let units = systemd::active(&EPMD_UNITS);
        if !units.is_empty() {
            return Ok(Mapper::EpmdUnits(units));
        }
    }
    match port.owners.as_slice() {
        [] => Err(Failure::new(
            Exit::Refused,
            format!("port {} is held by {}, which this user may not stop", target.port, port.holder()),
            "run the command as root, or as the user who runs epmd; if it runs in a container, stop it there",
        )),
        [owner] if owner.is_epmd() => Ok(Mapper::Epmd(Some(owner.clone()), Stock::like(owner))),
        owners if owners.iter().any(Owner::is_pmd) => Err(port_conflict(port, target)),
        _ => Err(Failure::new(
            Exit::Conflict,
            format!("port {} is held by {}, which is not a stock epmd", target.port, port.holder()),
            "stop it manually, then run `pmd start`",
        )),
    }
}

/// The pmd that replaces `from`: no more exposed than `from`, unless its own settings say so.
///
/// It uses pmd's systemd units if they are installed and sufficient: they ignore flags and environment variables, and
/// their socket listens on all addresses.
fn successor(settings: &Settings, target: &Target, port: &Port, from: &Mapper) -> Mapper {
    let sockets = port.sockets.iter().map(|socket| socket.local.ip());
    let bind = if settings.bind.is_empty() { addresses_to_bind(sockets) } else { Vec::new() };
    let was_relaxed = matches!(from, Mapper::Epmd(_, Some(stock)) if stock.is_relaxed());
    let relaxed = was_relaxed && !settings.relaxed_command_check;
    let system = Paths::of_system();
    let in_units = target.port == PORT
        && settings.socket == system.socket(PORT)
        && settings.config_file == Some(system.config_file())
        && settings.bind.is_empty()
        && bind.is_empty()
        && !relaxed
        && PMD_UNITS.iter().all(|unit| systemd::exists(unit));
    if in_units {
        return Mapper::PmdUnits { units: PMD_UNITS.map(ToString::to_string).to_vec(), enabled: true };
    }
    Mapper::Pmd { pid: None, bind, relaxed }
}

/// All names registered with epmd, with their details.
async fn registered(mapper: SocketAddr) -> Result<Vec<AdoptedName>> {
    let listing = ask::names(mapper, TIMEOUT).await.map_err(|error| {
        Failure::new(
            Exit::NotReachable,
            format!("the epmd on {mapper} did not list its names: {error}"),
            "try again; nothing has been changed",
        )
    })?;
    let entries: Vec<(String, u16)> =
        listing.entries().map(|entry| (entry.name.to_owned(), entry.port)).collect();
    let names = stream::iter(entries).map(async |(name, port)| {
        // If the lookup of a listed name fails, the listing still provides its port.
        let found = ask::port_please(mapper, &name, LOCAL).await.ok().flatten();
        let found = found.as_ref();
        AdoptedName {
            name,
            port: found.map_or(port, |found| found.port),
            node_type: found.map_or(77, |found| found.node_type),
            protocol: found.map_or(0, |found| found.protocol),
            highest_version: found.map_or(6, |found| found.highest_version),
            lowest_version: found.map_or(5, |found| found.lowest_version),
            extra: found.map(|found| found.extra.to_vec()).unwrap_or_default(),
        }
    });
    // epmd lists the newest name first. Adopting the names in reverse keeps that order.
    let mut names: Vec<AdoptedName> = names.buffered(LOOKUPS).collect().await;
    names.reverse();
    Ok(names)
}

/// Marks the nodes that have registered with pmd.
async fn look(client: &Client, nodes: &mut [Node]) -> bool {
    let Ok(adopted) = client.names(Some(true)).await else { return false };
    let adopted: HashSet<String> = adopted.names.into_iter().map(|name| name.name).collect();
    // Requests the long list only if it can have changed.
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
