//! A lookup as a [`Directory`](super::Directory) sees it, and its reply, at once or later.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use pmd_protocol::epmd::{Alive2, encode};
use rustix::net::{SendFlags, getsockname, send};

use super::trace;
use crate::counters::Counters;
use crate::descriptors::{Class, Descriptors};

/// A connection as a [`Directory`](super::Directory) sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The address of its peer; `None` if that is not an IP address.
    pub peer: Option<SocketAddr>,
    /// The socket.
    socket: BorrowedFd<'a>,
}

impl<'a> Asker<'a> {
    /// The connection behind `socket`, from `peer`.
    #[must_use]
    pub fn new(socket: &'a OwnedFd, peer: Option<SocketAddr>) -> Asker<'a> {
        Asker { peer, socket: socket.as_fd() }
    }

    /// The local address of the connection. Costs a system call.
    #[must_use]
    pub fn own_address(&self) -> Option<IpAddr> {
        let own = getsockname(self.socket).ok()?;
        SocketAddr::try_from(own).ok().map(|own| own.ip())
    }

    /// Whether it comes from a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }
}

/// The result of a lookup that finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFound {
    /// The result field of the reply. Stock epmd has only 1, and its clients treat all others alike.
    pub result: u8,
    /// Whether the directory can find out more: [`find_later`](super::Directory::find_later).
    pub for_now: bool,
}

impl NotFound {
    /// The result of stock epmd.
    pub const STOCK: NotFound = NotFound::with(1);

    /// Nothing is found, which the reply says with this result.
    #[must_use]
    pub const fn with(result: u8) -> NotFound {
        NotFound { result, for_now: false }
    }
}

/// A lookup that waits for its answer. If it is dropped, the connection closes without one.
#[derive(Debug)]
pub struct Later {
    socket: OwnedFd,
    peer: Option<SocketAddr>,
    counters: Arc<Counters>,
    descriptors: Arc<Descriptors>,
}

impl Later {
    /// The lookup on this connection, which is counted as waiting and which no thread watches.
    pub(super) fn new(
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        counters: Arc<Counters>,
        descriptors: Arc<Descriptors>,
    ) -> Later {
        Later { socket, peer, counters, descriptors }
    }

    /// The connection.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker::new(&self.socket, self.peer)
    }

    /// Answers with the registration that `find` passes on, and closes the connection. Does not block.
    pub fn answer(self, find: impl FnOnce(&Asker<'_>, &mut dyn FnMut(&Alive2<'_>)) -> Result<(), NotFound>) {
        let mut answer = Vec::new();
        let found = find(&self.asker(), &mut |node| encode::port2_found(node, &mut answer));
        reply(&self.counters, &self.socket, found, &mut answer, SendFlags::NOSIGNAL);
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.descriptors.release(Class::Waiting);
    }
}

/// Sends the reply to a lookup: `answer`, if a node was found.
pub(super) fn reply(
    counters: &Counters,
    socket: &OwnedFd,
    found: Result<(), NotFound>,
    answer: &mut Vec<u8>,
    flags: SendFlags,
) {
    match found {
        Ok(()) => counters.lookups_found.add(),
        Err(NotFound { result, .. }) => {
            counters.lookups_not_found.add();
            answer.clear();
            answer.extend_from_slice(&encode::port2_not_found(result));
        }
    }
    trace::bytes(answer);
    // An answer has at most 2 kB, which always fits into the buffer of a fresh socket.
    let _ = send(socket, answer, flags);
    tracing::debug!("got PORT2_REQ, {}", if found.is_ok() { "ok" } else { "not found" });
}
