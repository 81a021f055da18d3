//! Error messages for a daemon that does not answer and for a port held by another program.

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::target::Target;
use crate::control::client::ClientError;
use crate::takeover::owner::Owner;
use crate::takeover::port::Port;

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
    } else if found.mapper.is_some() {
        (
            format!("port {port} is held by an epmd: {holder}"),
            format!("replace it without restarting a node: {}", target.command("takeover")),
        )
    } else {
        (
            format!("port {port} is held by a program that is not a port mapper: {holder}"),
            "stop it, or choose another port with --port (and ERL_EPMD_PORT for every node)".to_owned(),
        )
    };
    Failure::new(Exit::Conflict, message, hint)
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
        if port.mapper.is_some() {
            failure.hint = port_conflict(&port, target).hint;
            failure.message =
                format!("{}; port {} is held by {}", failure.message, target.port, port.holder());
        }
    }
    Err(failure)
}
