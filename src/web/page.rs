//! The paths of the status page, and who may read them.
//!
//! The page consists of three embedded files and the read-only paths of the control API. It cannot change anything and
//! loads nothing from other hosts. Beside it are the paths for commands of local users who may not use the control socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, http};
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use crate::base::rate::{Rate, TokenBucket};
use crate::control::api::{ErrorBody, ErrorCode, ErrorInfo};
use crate::control::endpoints::{Call, Web, endpoints};

const INDEX: &str = include_str!("assets/index.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
/// Event streams at once: half of all connections, so that the rest can still be used for requests.
const STREAMS: usize = 32;

/// Pings at once. Each takes a descriptor and up to some seconds.
const PINGS: usize = 4;
/// Pings of all local users together: enough for a script that pings each of its nodes.
const PING_RATE: Rate = Rate { burst: 20, per_second: 2 };

/// The host names that requests may use.
#[derive(Debug)]
pub struct Names {
    /// The name of this host.
    pub own: String,
    /// Whether any name will do for the page.
    pub any: bool,
}

/// What requests must satisfy.
#[derive(Debug)]
struct Gate {
    names: Names,
    /// Whether the client is on this host.
    local: bool,
    streams: Arc<Semaphore>,
    pings: Arc<Semaphore>,
    /// Of [`PING_RATE`], with milliseconds since `started`.
    bucket: Mutex<TokenBucket>,
    started: Instant,
}

/// The page and `api`, the paths of the control API for clients on this host, or for others.
pub fn router(api: Router, names: Names, local: bool) -> Router {
    let gate = Arc::new(Gate {
        names,
        local,
        streams: Arc::new(Semaphore::new(STREAMS)),
        pings: Arc::new(Semaphore::new(PINGS)),
        bucket: Mutex::new(TokenBucket::full(PING_RATE, 0)),
        started: Instant::now(),
    });
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, HeaderValue::from_static(kind))], text) })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", INDEX))
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/app.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .merge(api)
        .layer(middleware::from_fn_with_state(gate, guard))
}

/// Rejects requests that would change something or name a different host, and adds the security headers.
async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&gate, &request) {
        Some(refusal) => refusal.into_response(),
        None if request.uri().path() == Call::Events.path() => stream(&gate, request, next).await,
        None if request.method() == Method::POST => ping(&gate, request, next).await,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(gate: &Gate, request: &Request) -> Option<(StatusCode, &'static str)> {
    let path = request.uri().path();
    let is_ping = gate.local && path == Call::Ping.path() && request.method() == Method::POST;
    if !is_ping && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: the status page is read-only\n"));
    }
    // A page of a foreign site can make a browser on this host send a POST, but not with this type of content, unless
    // it is allowed to in answer to OPTIONS.
    if is_ping && request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        let wrong = "the body must be of type application/json\n";
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, wrong));
    }
    let only_local = |web: Web| web.local && web.path == path;
    if gate.names.any && !endpoints().iter().filter_map(|endpoint| endpoint.web).any(only_local) {
        return None;
    }
    let asked = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // DNS rebinding: a foreign page whose host name resolves to this address must not read this one.
    let wrong = "the request names a different host: open http://localhost, with the port\n";
    (!names_this_host(asked, &gate.names.own)).then_some((StatusCode::FORBIDDEN, wrong))
}

/// Whether the header `Host` names this host, by a name that no foreign domain can have.
fn names_this_host(asked: &str, own: &str) -> bool {
    let Ok(authority) = asked.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().to_lowercase();
    let own = own.to_lowercase();
    let short = own.split('.').next().unwrap_or_default();
    ["localhost", "127.0.0.1", "[::1]", own.as_str(), short].contains(&host.as_str())
}

/// The event stream, unless too many are open.
async fn stream(gate: &Gate, request: Request, next: Next) -> Response {
    let Ok(permit) = Arc::clone(&gate.streams).try_acquire_owned() else {
        let full = "too many event streams are open: close some status pages\n";
        return (StatusCode::SERVICE_UNAVAILABLE, full).into_response();
    };
    let (head, body) = next.run(request).await.into_parts();
    let body = body.into_data_stream().map(move |piece| {
        // Held until the stream ends.
        let _ = &permit;
        piece
    });
    Response::from_parts(head, Body::from_stream(body))
}

/// A ping, unless there are too many.
async fn ping(gate: &Gate, request: Request, next: Next) -> Response {
    let now = u64::try_from(gate.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let permit = gate.pings.try_acquire().ok();
    // A poisoned lock means that a thread panicked between two assignments of numbers.
    let in_time = || gate.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(PING_RATE, now);
    let Some(_permit) = permit.filter(|_| in_time()) else {
        let error = ErrorInfo {
            code: ErrorCode::Full.as_str().to_owned(),
            message: "users without access to the control socket have sent too many pings".to_owned(),
            hint: "try again in a few seconds, or set control_group in the daemon's configuration file to give a group \
                   access"
                .to_owned(),
        };
        return (StatusCode::SERVICE_UNAVAILABLE, Json(ErrorBody { error })).into_response();
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_are_accepted() {
        let own = "db1.example.org";
        for right in
            ["localhost", "localhost:4369", "127.0.0.1:4369", "[::1]:4369", "DB1", "db1.example.org:4369"]
        {
            assert!(names_this_host(right, own), "{right}");
        }
        for wrong in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4369", "db2", "[::2]"]
        {
            assert!(!names_this_host(wrong, own), "{wrong}");
        }
    }
}
