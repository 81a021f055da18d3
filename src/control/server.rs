//! Connections to the control socket, and their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use super::api::Reloaded;
use super::limits::{MAX_REQUEST, REQUEST_TIMEOUT};
use super::reload::{self, ReloadError};
use super::routes;
pub use super::socket::{ControlSocket, bind};
use crate::base::descriptors::Class;
use crate::daemon::Context;

/// Connections at once: a sixteenth of the descriptors, within these bounds. Each `pmd register ... -- COMMAND` and
/// each `pmd subscribe` needs one; a runaway script must not take what nodes need.
const SHARE: (usize, usize) = (8, 1024);
/// How many of them are had even while others have taken all the descriptors but the reserve: one in 64, within
/// these bounds, which is a part of what is set aside for the daemon itself.
const ALWAYS: (usize, usize) = (1, 16);
/// How long answers may take to leave once the daemon ends. Shorter than what the daemon waits for all of this.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Pause after a failed accept, which mostly means that there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What a connection too many is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    connection: close\r\n\r\n{\"error\":{\"code\":\"full\",\"message\":\"the daemon has as many control \
    connections as it can serve\",\"hint\":\"end some pmd register or pmd subscribe commands\"}}\n";

/// Serves the control API until the daemon ends; the socket file goes with the end.
pub async fn serve(context: Arc<Context>, socket: ControlSocket) {
    let ControlSocket { listener, file } = socket;
    match UnixListener::from_std(listener) {
        Ok(listener) => accept(context, listener).await,
        Err(error) => tracing::error!("cannot serve the control socket: {error}"),
    }
    drop(file);
}

/// Reads everything again and says in the log what came of it, whoever has asked for it.
///
/// # Errors
///
/// If something is wrong; nothing has changed then.
pub fn reload(context: &Context) -> Result<Reloaded, ReloadError> {
    let done = reload::reload(context);
    match &done {
        Ok(done) => {
            if done.applied.is_empty() && done.needs_restart.is_empty() {
                tracing::info!("read everything again: nothing has changed");
            }
            if !done.applied.is_empty() {
                tracing::info!("in force from now on: {}", done.applied.join(", "));
            }
            if !done.needs_restart.is_empty() {
                let keys = done.needs_restart.join(", ");
                tracing::warn!("the configuration file has changed, but these keys need a restart: {keys}");
            }
        }
        Err(error) => tracing::error!("nothing was read again, and nothing has changed: {error}"),
    }
    done
}

async fn accept(context: Arc<Context>, listener: UnixListener) {
    let door = context.doors.token();
    let routes = routes::router(Arc::clone(&context));
    let connections = TaskTracker::new();
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = context.shutdown.wait() => break,
        };
        match accepted {
            Ok((stream, _)) => match Permit::get(&context, &open) {
                Some(permit) => {
                    connections.spawn(converse(Arc::clone(&context), stream, routes.clone(), permit));
                }
                // The answer fits into any socket's buffer; if not, the end of the connection says enough.
                None => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                tracing::warn!("cannot accept a control connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // No newcomer waits in vain, while those who are being answered get their answer.
    drop(listener);
    drop(door);
    connections.close();
    connections.wait().await;
}

async fn converse(context: Arc<Context>, stream: UnixStream, routes: Router, permit: Permit) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).max_buf_size(MAX_REQUEST);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = context.shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a control connection ended: {error}");
    }
    drop(permit);
}

/// The right to one connection.
#[derive(Debug)]
struct Permit {
    context: Arc<Context>,
    open: Arc<AtomicUsize>,
    /// Whether it counts among the connections that the EPMD port has to leave room for.
    counted: bool,
}

impl Permit {
    fn get(context: &Arc<Context>, open: &Arc<AtomicUsize>) -> Option<Permit> {
        let limit = context.descriptors.limit();
        let before = open.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit { context: Arc::clone(context), open: Arc::clone(open), counted: false };
        if before >= (limit / 16).clamp(SHARE.0, SHARE.1) {
            return None;
        }
        if before >= (limit / 64).clamp(ALWAYS.0, ALWAYS.1) {
            permit.counted = context.descriptors.reserve(Class::Waiting).is_ok();
            if !permit.counted {
                return None;
            }
        }
        Some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if self.counted {
            self.context.descriptors.release(Class::Waiting);
        }
    }
}
