//! Plain text for monitoring and support bundles: the metrics and the latest log lines.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::base::log::ring;
use crate::control::handles::{About, MaybeMember, Measured};
use crate::directory::Directory;
use crate::metrics;
use crate::metrics::gather::{Sources, observe};

pub(super) async fn metrics(
    State(about): State<Arc<About>>,
    State(measured): State<Measured>,
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
) -> impl IntoResponse {
    let sources = Sources {
        started_ms: about.started_ms,
        local: directory.local(),
        descriptors: &measured.descriptors,
        epmd: &measured.epmd,
        latency: &measured.latency,
        counters: &measured.counters,
        cluster: member.as_ref().map(|member| &*member.cluster),
        claims: member.as_ref().and_then(|member| member.claims.as_deref()),
        tunnels: member.as_ref().map(|member| member.tunnels.table()),
    };
    let observed = observe(sources).await;
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(metrics::FAMILIES, &observed))
}

pub(super) async fn log() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], ring::recent())
}
