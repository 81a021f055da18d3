//! What to say when the daemon is not there, or when something else is.

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::target::Target;
use crate::control::client::ClientError;
use crate::takeover::owner::Owner;
use crate::takeover::port::Port;

impl Port {
    /// Why a daemon cannot have this port.
    pub fn conflict(&self, target: &Target) -> Failure {
        let (port, holder) = (target.port, self.holder());
        if self.owners.iter().any(Owner::is_pmd) {
            return Failure::new(
                Exit::Conflict,
                format!(
                    "port {port} is held by another pmd, which does not answer on {}: {holder}",
                    target.socket.display()
                ),
                "say where its control socket is with --socket, or end it with a signal",
            );
        }
        if self.mapper.is_some() {
            return Failure::new(
                Exit::Conflict,
                format!("port {port} is held by an epmd: {holder}"),
                format!("replace it without restarting a node: {}", target.command("takeover")),
            );
        }
        Failure::new(
            Exit::Conflict,
            format!("port {port} is held by something that is no port mapper: {holder}"),
            "end it, or choose another port with --port (and ERL_EPMD_PORT for every node)",
        )
    }
}

/// Makes a failure of the answer, with the best advice that can be given if there is none.
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
            failure.hint = port.conflict(target).hint;
            failure.message =
                format!("{}; port {} is held by {}", failure.message, target.port, port.holder());
        }
    }
    Err(failure)
}
