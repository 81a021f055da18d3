//! The sockets and processes that listen on a port of this host, and whether a port mapper answers there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Uid, User};
use pmd_epmd::kernel::sockets::{self, Socket};

use super::ask;
use super::owner::{self, Owner};
use crate::control::client::Client;
use crate::directory::dial_question::THIS_HOST;

/// Time limit for an answer of a port mapper on this host.
pub const LOCAL: Duration = Duration::from_secs(2);

/// The state of a port of this host.
#[derive(Debug)]
pub struct Port {
    /// The listening sockets.
    pub sockets: Vec<Socket>,
    /// The processes that hold them, if visible to this user.
    pub owners: Vec<Owner>,
    /// An address on which a port mapper answers.
    pub mapper: Option<SocketAddr>,
    /// The pmd of another user that listens; found only if no process is visible to this user.
    pub foreign: Option<Foreign>,
    /// Connections from the port to elsewhere, which keep a daemon from listening on it; empty if anything listens.
    pub outgoing: Vec<Socket>,
}

/// A pmd of another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The user's name, or `uid` and the number.
    pub user: String,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its control socket, if it has told.
    pub socket: Option<PathBuf>,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the pmd of {}", self.user)?;
        match self.pid {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}

impl Port {
    /// Examines a port.
    pub async fn look(port: u16) -> Port {
        // If the kernel's tables cannot be read, a request still shows whether a port mapper answers.
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
        let foreign = match (owners.as_slice(), sockets.first()) {
            ([], Some(socket)) => foreign(port, socket.uid, mapper).await,
            _ => None,
        };
        let outgoing = if sockets.is_empty() { outgoing(port) } else { Vec::new() };
        Port { sockets, owners, mapper, foreign, outgoing }
    }

    /// Whether nothing is listening on the port.
    pub fn is_free(&self) -> bool {
        self.sockets.is_empty() && self.mapper.is_none()
    }

    /// A description of the processes that listen.
    pub fn holder(&self) -> String {
        if let Some(foreign) = &self.foreign {
            return foreign.to_string();
        }
        match self.owners.as_slice() {
            [] => match self.sockets.first() {
                Some(socket) if socket.uid == 0 => "a process owned by root (uid 0)".to_owned(),
                Some(socket) => format!("a process owned by uid {}", socket.uid),
                None => "a process outside this container or network namespace".to_owned(),
            },
            owners => owners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        }
    }
}

/// The pmd behind a port whose listener belongs to another user, whose descriptors this user may not see.
async fn foreign(port: u16, uid: u32, mapper: Option<SocketAddr>) -> Option<Foreign> {
    if let Some(status) = Client::status_on_page(port, LOCAL).await {
        // The owner of a socket that was made by systemd is root, whoever runs the daemon.
        let process =
            i32::try_from(status.pid).ok().and_then(owner::owner).filter(|process| process.name == "pmd");
        let user = user(process.map_or(uid, |process| process.uid));
        return Some(Foreign { user, pid: Some(status.pid), socket: Some(status.socket) });
    }
    // Its page is off, and which process has the port is secret, but only pmd knows what `localhost` is.
    match ask::dial(mapper?, "pmd@localhost@inet", LOCAL).await {
        Ok(THIS_HOST) => Some(Foreign { user: user(uid), pid: None, socket: None }),
        _ => None,
    }
}

/// Connections from this port to elsewhere. The connections of a daemon that has just ended are not among them, because no
/// process has them open any more.
fn outgoing(port: u16) -> Vec<Socket> {
    sockets::find(|socket| socket.local.port() == port && !socket.listens && socket.inode != 0)
        .unwrap_or_default()
}

/// The name of a user.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}
