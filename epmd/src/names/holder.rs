//! The connection that keeps a node registered.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, getpeername, getsockname, recv, shutdown};

use super::table::{Claim, Holder, Registration};
use crate::kernel::sockets;

/// A node's connection. The socket is closed when the last reference to the registration is dropped.
#[derive(Debug)]
pub struct NodeSocket(OwnedFd);

impl NodeSocket {
    /// Takes ownership of the socket.
    pub fn new(socket: OwnedFd) -> NodeSocket {
        NodeSocket(socket)
    }

    /// The socket.
    pub fn socket(&self) -> &OwnedFd {
        &self.0
    }

    /// Returns the socket.
    pub fn into_socket(self) -> OwnedFd {
        self.0
    }

    /// Whether the node's side is known to be gone: the end of the stream, an error, or data, which also ends a
    /// registration, is ready to be read. Never blocks.
    ///
    /// A killed node is in this state until its shard has noticed the end; a newcomer with the same name must not be
    /// refused because of that.
    pub fn is_gone(&self) -> bool {
        let mut byte = [0];
        let peeked = recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Err(Errno::AGAIN | Errno::INTR))
    }

    /// The user id of the process that registered the node; `None` if the kernel does not say, as for a connection from
    /// another network namespace.
    pub fn owner(&self) -> Option<u32> {
        let own = SocketAddr::try_from(getsockname(&self.0).ok()?).ok()?;
        let peer = SocketAddr::try_from(getpeername(&self.0).ok()??).ok()?;
        let socket = sockets::connection(peer, own).ok()??;
        // A socket that no process has open is shown as one of root.
        (socket.inode != 0).then_some(socket.uid)
    }

    /// Ends the connection, from any thread. The thread that watches it sees the end and cleans up.
    pub fn disconnect(&self) {
        // This can only fail if the connection has already ended.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for NodeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Holder for NodeSocket {
    fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// The connection that holds a registration; `None` if it was adopted.
#[must_use]
pub fn socket_of(entry: &Registration<NodeSocket>) -> Option<&NodeSocket> {
    match &entry.claim {
        Claim::Held(socket) => Some(socket),
        Claim::Adopted => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_is_the_user_of_the_other_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let node = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
            let (accepted, _) = listener.accept().expect("a connection");
            let holder = NodeSocket::new(accepted.into());
            assert_eq!(holder.owner(), Some(rustix::process::geteuid().as_raw()));
            drop(node);
            assert_eq!(holder.owner(), None, "nobody has the other end open");
        }
    }
}
