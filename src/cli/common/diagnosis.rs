//! Error messages for a daemon that does not answer and for a port held by another program.

use pmd_epmd::kernel::sockets::Socket;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::target::Target;
use crate::control::client::ClientError;
use crate::takeover::owner::{Owner, owners};
use crate::takeover::port::{Foreign, Port};
use crate::takeover::systemd::{self, EPMD_UNITS};

/// The failure that explains which process holds the port.
pub fn port_conflict(found: &Port, target: &Target) -> Failure {
    let (port, holder) = (target.port, found.holder());
    let (message, hint) = if found.owners.iter().any(Owner::is_pmd) {
        (
            format!(
                "port {port} is held by another pmd, which does not answer on {}: {holder}",
                target.socket.display()
            ),
            "specify its control socket with --socket, or stop it with a signal".to_owned(),
        )
    } else if found.foreign.is_some() {
        (
            format!("port {port} is held by {holder}, which serves every user of this host"),
            "use that one: erl, pmd names and the other commands that only read need nothing else; for one of your own, choose \
             another port with --port"
                .to_owned(),
        )
    } else if found.mapper.is_some() {
        (format!("port {port} is held by an epmd: {holder}"), how_to_replace(found, target))
    } else if let Some(connection) = found.outgoing.first() {
        let program =
            owners(&found.outgoing).first().map_or_else(|| user_of(connection), ToString::to_string);
        (
            format!(
                "port {port} is in use as the source port of a connection to {} by {program}",
                connection.remote
            ),
            format!(
                "wait until that connection ends; to keep the kernel from choosing the port again: sysctl -w \
                 net.ipv4.ip_local_reserved_ports={port}"
            ),
        )
    } else {
        (
            format!("port {port} is held by a program that is not a port mapper: {holder}"),
            "stop it, or choose another port with --port (and ERL_EPMD_PORT for every node)".to_owned(),
        )
    };
    Failure::new(Exit::Conflict, message, hint)
}

fn user_of(socket: &Socket) -> String {
    format!("a process owned by uid {}", socket.uid)
}

/// How pmd can take the place of the epmd that holds the port: what `pmd takeover` accepts, and what it does not.
fn how_to_replace(found: &Port, target: &Target) -> String {
    let in_unit = || {
        let of_unit = |owner: &Owner| systemd::runs(owner.pid, &EPMD_UNITS);
        found.owners.iter().any(of_unit) && !systemd::active(&EPMD_UNITS).is_empty()
    };
    match (found.owners.as_slice(), found.sockets.as_slice()) {
        ([], []) => {
            "it runs in another container or network namespace: stop it there, or choose another port with \
                     --port (and ERL_EPMD_PORT for every node)"
                .to_owned()
        }
        ([], _) => format!(
            "replace it without restarting a node, as root or as the user who runs it: {}",
            target.command("takeover")
        ),
        ([owner], _) if owner.is_epmd() => replace(target),
        _ if in_unit() => replace(target),
        _ => format!("it is not a stock epmd: stop it, then run {}", target.command("start")),
    }
}

fn replace(target: &Target) -> String {
    format!("replace it without restarting a node: {}", target.command("takeover"))
}

/// Converts a client error into a failure. If no daemon is reachable, the hint depends on what holds the port.
pub async fn explain<T>(target: &Target, answer: std::result::Result<T, ClientError>) -> Result<T> {
    let error = match answer {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let absent = matches!(error, ClientError::NotReachable { .. });
    let mut failure = Failure::from(error);
    if absent {
        failure.hint = format!("start it: {}", target.command("start"));
        let port = Port::look(target.port).await;
        if let Some(foreign) = &port.foreign {
            return Err(not_ours(foreign, target));
        }
        if port.mapper.is_some() {
            failure.hint = port_conflict(&port, target).hint;
            failure.message =
                format!("{}; port {} is held by {}", failure.message, target.port, port.holder());
        }
    }
    Err(failure)
}

/// The failure of a command that needs the control socket of another user's daemon.
fn not_ours(foreign: &Foreign, target: &Target) -> Failure {
    let what = match &foreign.socket {
        Some(socket) => format!("whose control socket, {}, this user may not use", socket.display()),
        None => "whose control socket this user may not use, and whose status page, which everybody may read, is off".into(),
    };
    Failure::new(
        Exit::Refused,
        format!("port {} is held by {foreign}, {what}", target.port),
        format!(
            "run the command as {}, or set control_group in that daemon's configuration file to give a group access",
            foreign.user
        ),
    )
}
