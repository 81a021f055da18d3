//! What to say when the daemon is not there, or when something else is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::target::Target;
use crate::control::client::ClientError;
use crate::kernel::sockets::Socket;
use crate::takeover::ask;
use crate::takeover::owner::{self, Owner};

/// How long a port mapper on this host may take to answer.
pub const LOCAL: Duration = Duration::from_secs(2);

/// What is on a port of this host.
#[derive(Debug)]
pub struct Port {
    /// The sockets that listen.
    pub sockets: Vec<Socket>,
    /// The processes behind them, as far as this user may know.
    pub owners: Vec<Owner>,
    /// Where a port mapper answers, if one does.
    pub mapper: Option<SocketAddr>,
}

impl Port {
    /// Looks at it.
    pub async fn look(port: u16) -> Port {
        // A system that does not tell leaves asking.
        let sockets = owner::listening(port).unwrap_or_default();
        let owners = owner::owners(&sockets);
        let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut addresses: Vec<SocketAddr> = loopbacks.map(|ip| SocketAddr::new(ip, port)).to_vec();
        addresses.extend(sockets.iter().map(|socket| socket.local).filter(|own| !own.ip().is_unspecified()));
        let mut mapper = None;
        for address in addresses {
            if ask::names(address, LOCAL).await.is_ok() {
                mapper = Some(address);
                break;
            }
        }
        Port { sockets, owners, mapper }
    }

    /// Whether nobody listens.
    pub fn is_free(&self) -> bool {
        self.sockets.is_empty() && self.mapper.is_none()
    }

    /// Who listens, in words.
    pub fn holder(&self) -> String {
        match self.owners.as_slice() {
            [] => match self.sockets.first() {
                Some(socket) => format!("a process of the user with the number {}", socket.uid),
                None => "a process that cannot be seen from here".to_owned(),
            },
            owners => owners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        }
    }

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
