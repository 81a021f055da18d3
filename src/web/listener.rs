//! Connections that speak HTTP: from the threads of the EPMD port, which only look at their first bytes, to the runtime.
//!
//! They are few and bounded: a page is something that a person looks at.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pmd_epmd::counters::Counters;
use pmd_epmd::descriptors::Descriptors;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::page;
use super::write_timeout::Patience;
use crate::base::permit::Permit;
use crate::base::shutdown::Shutdown;
use crate::base::supervise::Supervisor;
use crate::config::types::WebAccess;
use crate::control::handles::Handles;
use crate::link::connection::Connection;

/// Connections at once. A browser opens up to six for a page, one of which is the event stream.
const CONNECTIONS: usize = 64;
/// How long a request's head may take; also how long a connection may idle, and how long one may stand still that has
/// to be written to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes that the kernel keeps for a visitor that does not read; it takes twice as much for its own book-keeping. By
/// default it could be megabytes for each.
const UNREAD: usize = 128 * 1024;
/// What a request begins with. EPMD requests begin with their length, of which these would be one beyond any limit.
/// Whole words, because two letters alone are a bad length like any other, and closed like one.
const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "];

/// Whether the first bytes of a connection are those of HTTP.
#[must_use]
pub fn is_http(input: &[u8]) -> bool {
    METHODS.iter().any(|method| input.starts_with(method))
}

/// A connection that has begun with HTTP.
#[derive(Debug)]
struct Visitor {
    socket: OwnedFd,
    address: SocketAddr,
    /// What was read already.
    head: Vec<u8>,
    _permit: OwnedSemaphorePermit,
    _place: Permit,
}

/// Where the threads of the EPMD port leave such connections.
#[derive(Debug, Clone)]
pub struct Door {
    visitors: mpsc::Sender<Visitor>,
    room: Arc<Semaphore>,
    access: WebAccess,
    descriptors: Arc<Descriptors>,
    counters: Arc<Counters>,
}

impl Door {
    /// Takes a connection over, or closes it: if there are too many, or if it comes from elsewhere.
    pub fn admit(&self, socket: OwnedFd, address: SocketAddr, head: Vec<u8>) {
        if self.access != WebAccess::Open && !address.ip().to_canonical().is_loopback() {
            self.counters.forbidden.add();
            return;
        }
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        let Some((permit, place)) = permit.zip(Permit::take(&self.descriptors)) else {
            self.counters.shed.add();
            return;
        };
        // As many places as permits: there is room.
        let visitor = Visitor { socket, address, head, _permit: permit, _place: place };
        let _ = self.visitors.try_send(visitor);
    }
}

/// Starts to serve the status page on this runtime, unless it is off.
#[must_use]
pub fn start(handles: &Handles, access: WebAccess, supervisor: &Supervisor) -> Option<Door> {
    if access == WebAccess::Off {
        return None;
    }
    let (visitors, queue) = mpsc::channel(CONNECTIONS);
    let routes = page::router(handles, access);
    supervisor.task("status page", receive(queue, routes, handles.shutdown.clone()));
    let (room, measured) = (Arc::new(Semaphore::new(CONNECTIONS)), &handles.measured);
    let (descriptors, counters) = (Arc::clone(&measured.descriptors), Arc::clone(&measured.epmd));
    Some(Door { visitors, room, access, descriptors, counters })
}

async fn receive(mut queue: mpsc::Receiver<Visitor>, routes: Router, shutdown: Shutdown) {
    while let Some(visitor) = queue.recv().await {
        tokio::spawn(converse(visitor, routes.clone(), shutdown.clone()));
    }
}

async fn converse(visitor: Visitor, routes: Router, shutdown: Shutdown) {
    let Visitor { socket, address, head, _permit, _place } = visitor;
    // The shard has made it not blocking.
    let socket = match TcpStream::from_std(StdStream::from(socket)) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%address, "cannot use a connection: {error}");
            return;
        }
    };
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD);
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&socket, UNREAD) {
        tracing::debug!(%address, "cannot bound what a connection keeps: {error}");
    }
    let wire = TokioIo::new(Patience::new(Connection::new(socket, address, head), PATIENCE));
    let connection = server.serve_connection(wire, TowerToHyperService::new(routes));
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%address, "a connection to the status page ended: {error}");
        },
        _ = shutdown.wait() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_whole_words() {
        assert!(is_http(b"GET / HTTP/1.1\r\n"));
        for other in [&b"GE"[..], b"GET", b"", b"\0\x01n", b"\x16\x03\x01", b"gEt "] {
            assert!(!is_http(other), "{other:?}");
        }
    }
}
