//! The sockets and processes that listen on a port of this host, and whether a port mapper answers there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::ask;
use super::owner::{self, Owner};
use pmd_epmd::kernel::sockets::Socket;

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
        Port { sockets, owners, mapper }
    }

    /// Whether nothing is listening on the port.
    pub fn is_free(&self) -> bool {
        self.sockets.is_empty() && self.mapper.is_none()
    }

    /// A description of the processes that listen.
    pub fn holder(&self) -> String {
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
