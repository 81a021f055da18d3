//! The paths of the status page, and who may read them.
//!
//! The page consists of three embedded files and the read-only paths of the control API. It cannot change anything and
//! loads nothing from other hosts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http};
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use crate::control::endpoints::Call;

const INDEX: &str = include_str!("assets/index.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
/// Event streams at once: half of all connections, so that the rest can still be used for requests.
const STREAMS: usize = 32;

/// What requests must satisfy.
#[derive(Debug)]
struct Gate {
    /// The host name that requests must use; none if any will do.
    host: Option<String>,
    streams: Arc<Semaphore>,
}

/// The page and `api`, the read-only paths of the control API; with `host`, only for requests that name this host.
pub fn router(api: Router, host: Option<String>) -> Router {
    let gate = Arc::new(Gate { host, streams: Arc::new(Semaphore::new(STREAMS)) });
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
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: the status page is read-only\n"));
    }
    let own = gate.host.as_deref()?;
    let asked = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // DNS rebinding: a foreign page whose host name resolves to this address must not read this one.
    let wrong = "the request names a different host: open http://localhost, with the port\n";
    (!names_this_host(asked, own)).then_some((StatusCode::FORBIDDEN, wrong))
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
