//! Connections to the control socket, and their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pmd_epmd::descriptors::{Class, Descriptors};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use super::handles::Handles;
use super::limits::{MAX_REQUEST, REQUEST_TIMEOUT};
use super::routes;
pub use super::socket::{ControlSocket, bind};
use crate::base::shutdown::Shutdown;

/// Connections at once: a sixteenth of the descriptors, within these bounds. Each `pmd register ... -- COMMAND` and
/// each `pmd subscribe` needs one; a runaway script must not take the descriptors that nodes need.
const LIMIT: (usize, usize) = (8, 1024);
/// Connections that are served even when only the reserve of descriptors is left: one for each 64 descriptors, within
/// these bounds. They come out of the daemon's own reserve.
const GUARANTEED: (usize, usize) = (1, 16);
/// How long requests may take to finish once the daemon shuts down. Shorter than the daemon's own wait for this server.
const GRACE: Duration = Duration::from_millis(1500);
/// Pause after a failed accept, which usually means that no descriptor is free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The response to a connection over the limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    connection: close\r\n\r\n{\"error\":{\"code\":\"full\",\"message\":\"too many control connections\",\
    \"hint\":\"stop some pmd register or pmd subscribe commands\"}}\n";

/// Serves the control API until the daemon shuts down, and then removes the socket file.
///
/// Keeps a token of `holding` until another daemon may replace the socket.
pub async fn serve(handles: Handles, holding: TaskTracker, socket: ControlSocket) {
    let ControlSocket { listener, file } = socket;
    match UnixListener::from_std(listener) {
        Ok(listener) => accept(handles, holding, listener).await,
        Err(error) => tracing::error!("cannot serve the control socket: {error}"),
    }
    drop(file);
}

async fn accept(handles: Handles, holding: TaskTracker, listener: UnixListener) {
    let held = holding.token();
    let (shutdown, descriptors) = (handles.shutdown.clone(), Arc::clone(&handles.measured.descriptors));
    let routes = routes::router(handles);
    let connections = TaskTracker::new();
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait() => break,
        };
        match accepted {
            Ok((stream, _)) => match ControlPermit::get(&descriptors, &open) {
                Some(permit) => {
                    connections.spawn(serve_connection(shutdown.clone(), stream, routes.clone(), permit));
                }
                // The response fits into any socket buffer; if the write fails anyway, closing is enough.
                None => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                tracing::warn!("cannot accept a control connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    // New clients are refused at once; requests in progress are answered.
    drop(listener);
    drop(held);
    connections.close();
    connections.wait().await;
}

async fn serve_connection(shutdown: Shutdown, stream: UnixStream, routes: Router, permit: ControlPermit) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).max_buf_size(MAX_REQUEST);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a control connection ended: {error}");
    }
    drop(permit);
}

/// A permit for one control connection.
#[derive(Debug)]
struct ControlPermit {
    descriptors: Arc<Descriptors>,
    open: Arc<AtomicUsize>,
    /// Whether it has reserved a descriptor beyond the guaranteed ones.
    counted: bool,
}

impl ControlPermit {
    fn get(descriptors: &Arc<Descriptors>, open: &Arc<AtomicUsize>) -> Option<ControlPermit> {
        let limit = descriptors.limit();
        let before = open.fetch_add(1, Ordering::Relaxed);
        let mut permit =
            ControlPermit { descriptors: Arc::clone(descriptors), open: Arc::clone(open), counted: false };
        if before >= (limit / 16).clamp(LIMIT.0, LIMIT.1) {
            return None;
        }
        if before >= (limit / 64).clamp(GUARANTEED.0, GUARANTEED.1) {
            permit.counted = descriptors.reserve(Class::Waiting).is_ok();
            if !permit.counted {
                return None;
            }
        }
        Some(permit)
    }
}

impl Drop for ControlPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if self.counted {
            self.descriptors.release(Class::Waiting);
        }
    }
}
