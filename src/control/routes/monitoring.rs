//! Text for monitoring and for support bundles: the metrics, and the latest lines of the log.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Shared;
use crate::base::log::ring;
use crate::metrics;

pub(super) async fn metrics(State(context): Shared) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics::render(metrics::FAMILIES, &metrics::gather::observe(&context).await),
    )
}

pub(super) async fn log() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], ring::recent())
}
