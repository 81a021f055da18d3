//! HTTP on the EPMD port. The port's threads recognise HTTP by its first bytes and hand the connections over to the
//! runtime.
//!
//! Their number is limited, because only people and monitoring read the status page.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pmd_epmd::counters::Counters;
use pmd_epmd::descriptors::Descriptors;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_io_timeout::TimeoutStream;

use super::page::{self, Names};
use crate::base::permit::Permit;
use crate::base::shutdown::Shutdown;
use crate::base::supervise::Supervisor;
use crate::config::types::WebAccess;
use crate::control::handles::Handles;
use crate::control::routes;
use crate::link::connection::Connection;

/// Connections at once. A browser opens up to six per page, one of them for the event stream.
const CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head, and how long a connection may be idle.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write may stall because the client does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Send buffer of a connection; the kernel allocates twice as much. The default can be megabytes.
const SEND_BUFFER: usize = 128 * 1024;
/// How an HTTP request begins. In an EPMD request, the first two bytes would be a length beyond any limit. Whole words
/// are compared, so that a connection with only the same first two letters is treated as a malformed EPMD request.
const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "];

/// Whether the first bytes of a connection begin an HTTP request.
#[must_use]
pub fn is_http(input: &[u8]) -> bool {
    METHODS.iter().any(|method| input.starts_with(method))
}

/// A connection that was handed over.
#[derive(Debug)]
struct Accepted {
    socket: OwnedFd,
    address: SocketAddr,
    /// Bytes already read from it.
    head: Vec<u8>,
    _permit: OwnedSemaphorePermit,
    _descriptor: Permit,
}

/// Takes connections over from the threads of the EPMD port.
#[derive(Debug, Clone)]
pub struct WebListener {
    queue: mpsc::Sender<Accepted>,
    permits: Arc<Semaphore>,
    access: WebAccess,
    descriptors: Arc<Descriptors>,
    counters: Arc<Counters>,
}

impl WebListener {
    /// Takes over a connection, or closes it if there are too many or if it is remote and only this host has access.
    pub fn admit(&self, socket: OwnedFd, address: SocketAddr, head: Vec<u8>) {
        if self.access != WebAccess::Open && !address.ip().to_canonical().is_loopback() {
            self.counters.forbidden.add();
            return;
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        let Some((permit, descriptor)) = permit.zip(Permit::take(&self.descriptors)) else {
            self.counters.shed.add();
            return;
        };
        // Cannot be full: the queue has room for every permit.
        let accepted = Accepted { socket, address, head, _permit: permit, _descriptor: descriptor };
        let _ = self.queue.try_send(accepted);
    }
}

/// Starts serving the status page on this runtime, unless it is disabled.
#[must_use]
pub fn start(handles: &Handles, access: WebAccess, supervisor: &Supervisor) -> Option<WebListener> {
    if access == WebAccess::Off {
        return None;
    }
    let own = handles.about.host.clone();
    let page = |local| {
        let names = Names { own: own.clone(), any: access == WebAccess::Open };
        page::router(routes::read_only(handles.clone(), local), names, local)
    };
    let pages = Pages { local: page(true), remote: page(false) };
    let (queue, connections) = mpsc::channel(CONNECTIONS);
    supervisor.task("status page", serve(connections, pages, handles.shutdown.clone()));
    let (permits, measured) = (Arc::new(Semaphore::new(CONNECTIONS)), &handles.measured);
    let (descriptors, counters) = (Arc::clone(&measured.descriptors), Arc::clone(&measured.epmd));
    Some(WebListener { queue, permits, access, descriptors, counters })
}

/// What clients on this host get, and what others do.
#[derive(Debug)]
struct Pages {
    local: Router,
    remote: Router,
}

async fn serve(mut connections: mpsc::Receiver<Accepted>, pages: Pages, shutdown: Shutdown) {
    while let Some(accepted) = connections.recv().await {
        let is_local = accepted.address.ip().to_canonical().is_loopback();
        let page = if is_local { &pages.local } else { &pages.remote };
        tokio::spawn(serve_connection(accepted, page.clone(), shutdown.clone()));
    }
}

async fn serve_connection(accepted: Accepted, page: Router, shutdown: Shutdown) {
    let Accepted { socket, address, head, _permit, _descriptor } = accepted;
    // The EPMD port's thread has made it non-blocking.
    let socket = match TcpStream::from_std(StdStream::from(socket)) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%address, "cannot use an accepted connection: {error}");
            return;
        }
    };
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER) {
        tracing::debug!(%address, "cannot limit the send buffer of a connection: {error}");
    }
    let stream = with_write_timeout(Connection::new(socket, address, head), WRITE_TIMEOUT);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).max_buf_size(MAX_HEAD);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(page));
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::debug!(%address, "a connection to the status page ended: {error}");
        },
        _ = shutdown.wait() => {}
    }
}

fn with_write_timeout<T: AsyncRead + AsyncWrite>(stream: T, limit: Duration) -> Pin<Box<TimeoutStream<T>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limit));
    Box::pin(stream)
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_to_a_client_that_does_not_read_times_out() {
        let (near, mut far) = duplex(4);
        let mut near = with_write_timeout(near, Duration::from_millis(1));
        near.write_all(b"four").await.expect("there is room");
        let error = near.write_all(b"more").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut read = [0; 4];
        far.read_exact(&mut read).await.expect("what was written");
        near.write_all(b"more").await.expect("there is room again");
    }

    #[test]
    fn http_is_recognised_by_whole_words() {
        assert!(is_http(b"GET / HTTP/1.1\r\n"));
        for other in [&b"GE"[..], b"GET", b"", b"\0\x01n", b"\x16\x03\x01", b"gEt "] {
            assert!(!is_http(other), "{other:?}");
        }
    }
}
