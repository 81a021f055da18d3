//! The kernel's information on a socket.

use std::net::SocketAddr;

/// A TCP or UDP socket of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its local address.
    pub local: SocketAddr,
    /// The address it is connected to; unspecified if it listens.
    pub remote: SocketAddr,
    /// Whether it listens, or, for UDP, receives from anybody.
    pub listens: bool,
    /// The user id of its creator.
    pub uid: u32,
    /// Identifies it among a process's descriptors; 0 if no process has it open.
    pub inode: u64,
}
