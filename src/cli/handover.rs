//! `pmd handover`: gives the port and the nodes back to a stock epmd.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::args::{self, Global};
use super::common::runtime::block_on_uninterrupted;
use super::common::switch::{Interrupt, Mapper, Node, PMD_UNITS, Report, Switch, addresses_to_bind};
use super::common::target::absolute;
use super::common::{Exit, Failure, Output, Result, Target, explain, note};
use crate::base::text::count;
use crate::control::api::Status;
use crate::control::client::ClientError;
use crate::takeover::owner::Owner;
use crate::takeover::port::{LOCAL, Port};
use crate::takeover::stock::{self, Stock};
use crate::takeover::systemd::EPMD_UNITS;
use crate::takeover::{ask, systemd};

/// The program that the units of stock epmd start. The Debian package of pmd diverts it while installed.
const UNIT_PROGRAM: &str = "/usr/bin/epmd";

/// Gives the port back to epmd.
pub fn run(global: &Global, target: &Target, args: &args::Handover, output: Output) -> Result<Exit> {
    block_on_uninterrupted(Box::pin(hand_over(global, target, args, output)))
}

async fn hand_over(global: &Global, target: &Target, args: &args::Handover, output: Output) -> Result<Exit> {
    let mut interrupt = Interrupt::new()?;
    let client = target.control();
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return report_unchanged(error, target, output).await,
    };
    let listed = explain(target, client.names(None).await).await?;
    let nodes: Vec<Node> =
        listed.names.into_iter().rev().map(|name| Node::new(name.name, name.port)).collect();
    if nodes.len() > stock::MAX_NODES && !args.force {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} nodes are registered, but epmd can hold at most {}", nodes.len(), stock::MAX_NODES),
            "stop some of them first, or lose the rest with --force; nothing has been changed",
        ));
    }
    let switch = plan(global, target, args, &status)?;
    if args.dry_run {
        return switch.show(&nodes, output);
    }
    if status.services.registered > 0 {
        note(&format!(
            "warning: {} lost: epmd has no services",
            count(status.services.registered, "service is", "services are")
        ));
    }
    if interrupt.received() {
        return Ok(Exit::Interrupted);
    }
    let pid = switch.run(&nodes).await?;
    let look = async |nodes: &mut [Node]| look(target.port, nodes).await;
    switch.conclude(pid, nodes, args.wait, &mut interrupt, look, output).await
}

/// If epmd already holds the port, there is nothing to do; otherwise explains the error.
async fn report_unchanged(error: ClientError, target: &Target, output: Output) -> Result<Exit> {
    let port = Port::look(target.port).await;
    if matches!(error, ClientError::NotReachable { .. })
        && port.mapper.is_some()
        && port.foreign.is_none()
        && !port.owners.iter().any(Owner::is_pmd)
    {
        let pid = port.owners.first().and_then(|owner| u32::try_from(owner.pid).ok());
        return Report::print_unchanged(target.port, "epmd", pid, &port.holder(), output);
    }
    explain(target, Err::<Exit, _>(error)).await
}

fn plan<'a>(
    global: &'a Global,
    target: &'a Target,
    args: &args::Handover,
    status: &Status,
) -> Result<Switch<'a>> {
    let managed = i32::try_from(status.pid).is_ok_and(|pid| systemd::runs(pid, &PMD_UNITS));
    let units = if managed { systemd::active(&PMD_UNITS) } else { Vec::new() };
    let enabled = !units.is_empty() && systemd::enabled(&units);
    let bind = addresses_to_bind(status.listening.iter().map(SocketAddr::ip));
    let relaxed = status.relaxed_command_check;
    let back_to_units = !units.is_empty()
        && args.epmd.is_none()
        && systemd::exists(EPMD_UNITS[0])
        && !is_pmd(Path::new(UNIT_PROGRAM));
    let to = if back_to_units {
        Mapper::EpmdUnits(vec![EPMD_UNITS[0].to_owned()])
    } else {
        Mapper::Epmd(None, Some(Stock::instead(program(args)?, target.port, &bind, relaxed)))
    };
    // Enabled units of pmd own the names of epmd's units as aliases, so they must be disabled to give the names back.
    let enabled_units = if enabled && !back_to_units { units.clone() } else { Vec::new() };
    let from = if units.is_empty() {
        Mapper::Pmd { pid: Some(status.pid), bind, relaxed }
    } else {
        Mapper::PmdUnits { units, enabled: enabled && back_to_units }
    };
    Ok(Switch { global, target, from, to, enabled_units })
}

/// The epmd to start.
fn program(args: &args::Handover) -> Result<PathBuf> {
    match &args.epmd {
        Some(program) if program.is_file() => Ok(absolute(program)),
        Some(program) => Err(Failure::new(
            Exit::NotFound,
            format!("no such program: {}", program.display()),
            "specify the epmd of an Erlang installation; nothing has been changed",
        )),
        None => stock::installed().into_iter().next().ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                "no epmd is installed on this host",
                "install Erlang/OTP, or specify the program with --epmd; nothing has been changed",
            )
        }),
    }
}

/// Whether a program is this executable, under any name.
fn is_pmd(program: &Path) -> bool {
    program.canonicalize().ok().zip(std::env::current_exe().ok()).is_some_and(|(there, own)| there == own)
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
