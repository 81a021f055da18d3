//! What each path of the control API answers.

mod cluster;
mod daemon;
mod events;
mod lookup;
mod monitoring;
mod names;
mod reach;
mod request;
mod services;
mod tunnel;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Json;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};

use super::api;
use crate::daemon::Context;
use request::ApiError;

/// What every handler gets.
type Shared = State<Arc<Context>>;
/// What follows the question mark.
type Asked = Query<Vec<(String, String)>>;
/// What most handlers return.
type Answer<T> = Result<Json<T>, ApiError>;

/// The paths that the status page and monitoring read, without those that change anything.
pub fn read_only(context: Arc<Context>) -> Router {
    let paths = Router::new()
        .route("/status", get(daemon::status))
        .route("/nodes", get(cluster::nodes))
        .route("/peers", get(cluster::peers))
        .route("/names", get(names::list))
        .route("/services", get(services::list))
        .route("/events", get(events::subscribe));
    Router::new().nest(api::PREFIX, paths).route("/metrics", get(monitoring::metrics)).with_state(context)
}

/// All paths.
pub fn router(context: Arc<Context>) -> Router {
    let paths = Router::new()
        .route("/status", get(daemon::status))
        .route("/health", get(daemon::health))
        .route("/names", get(names::list))
        .route("/names/adopt", post(names::adopt))
        .route("/services", get(services::list).post(services::register))
        .route("/services/hold", post(services::hold))
        .route("/services/{name}", delete(services::unregister))
        .route("/lookup", get(lookup::lookup))
        .route("/nodes", get(cluster::nodes))
        .route("/peers", get(cluster::peers))
        .route("/discover", get(cluster::discover))
        .route("/reach", post(reach::reach))
        .route("/refusals", get(reach::refusals))
        .route("/join", post(cluster::join))
        .route("/leave", post(cluster::leave))
        .route("/tunnels", get(tunnel::list))
        .route("/ping", post(tunnel::ping))
        .route("/events", get(events::subscribe))
        .route("/metrics", get(monitoring::metrics))
        .route("/log", get(monitoring::log))
        .route("/stop", post(daemon::stop))
        .route("/reload", post(daemon::reload));
    Router::new()
        .nest(api::PREFIX, paths)
        .fallback(request::no_such_path)
        .method_not_allowed_fallback(request::no_such_method)
        .layer(middleware::from_fn(request::read_body))
        .with_state(context)
}
