//! The daemon itself: how it is, and what can be done with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};

use super::request::{ApiError, Parameters};
use super::{Answer, Asked, Shared, cluster, names, tunnel};
use crate::base::clock::now_ms;
use crate::base::descriptors::Class;
use crate::base::shutdown::Reason;
use crate::control::api::{self, ErrorCode};
use crate::control::boot_id;
use crate::control::json::timestamp;
use crate::daemon::Context;
use crate::directory::services::MAX_SERVICES;
use crate::takeover::ask;

/// Descriptors below which a warning is due.
const FEW_DESCRIPTORS: usize = 4096;
/// How long the daemon waits for itself when it is asked whether it is ready.
const SELF_TEST: Duration = Duration::from_secs(2);

pub(super) async fn status(State(context): Shared, query: Asked) -> Answer<api::Status> {
    let ask = Parameters::of(query, &["ask"])?.switch("ask") == Some(true);
    let (registered, old) = context.registry.count_names();
    let adopted = context.registry.all_names().iter().filter(|entry| names::is_adopted(entry)).count();
    let descriptors = &context.descriptors;
    let mut warnings = warnings(&context, registered, adopted);
    let cluster = match context.cluster.get() {
        None => None,
        Some(cluster) => {
            warnings.extend(cluster::warnings(cluster).await);
            warnings.extend(cluster.tunnels().warnings());
            Some(cluster::status(cluster, ask).await?)
        }
    };
    Ok(Json(api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        boot_id: boot_id(&context),
        host: context.settings.host.clone(),
        port: context.settings.port,
        listening: context.listening.clone(),
        socket: context.settings.socket.clone(),
        started_at: timestamp(context.started_ms),
        uptime_seconds: now_ms().saturating_sub(context.started_ms) / 1000,
        relaxed_command_check: context.settings.relaxed_command_check,
        metadata: context.settings.metadata.clone(),
        names: api::NameNumbers { registered, adopted, old, limit: descriptors.max_registered() },
        services: api::ServiceNumbers { registered: context.registry.count_services(), limit: MAX_SERVICES },
        descriptors: api::DescriptorNumbers {
            limit: descriptors.limit(),
            registered: descriptors.count(Class::Registered),
            waiting: descriptors.count(Class::Waiting),
            refused: descriptors.count(Class::Refused),
        },
        counters: context.counters.read(),
        tunnels: context.cluster.get().map(|cluster| tunnel::status(cluster)),
        cluster,
        warnings,
    }))
}

fn warnings(context: &Context, registered: usize, adopted: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let limit = context.descriptors.limit();
    let most = context.descriptors.max_registered();
    if limit < FEW_DESCRIPTORS {
        warnings.push(format!(
            "only {limit} descriptors may be open, so at most {most} nodes can register: \
             raise the limit (LimitNOFILE of systemd, ulimit -Hn) and restart"
        ));
    }
    if registered >= most {
        warnings.push(format!("all {most} places for nodes are taken: further nodes cannot register"));
    } else if registered >= most - most / 10 {
        warnings.push(format!("{registered} of {most} places for nodes are taken"));
    }
    match adopted {
        0 => {}
        1 => warnings.push("1 node taken over from another port mapper has not come back yet".into()),
        _ => warnings
            .push(format!("{adopted} nodes taken over from another port mapper have not come back yet")),
    }
    let failed = context.counters.accept_errors.get();
    if failed > 0 {
        warnings.push(format!("{failed} connections could not be accepted: see the daemon's log"));
    }
    warnings
}

pub(super) async fn health(State(context): Shared, query: Asked) -> Result<Response, ApiError> {
    let ready = Parameters::of(query, &["ready"])?.switch("ready").unwrap_or(false);
    let mut problems = Vec::new();
    if context.shutdown.requested().is_some() {
        problems.push("the daemon is about to end".to_owned());
    }
    if ready {
        if context.registry.count_names().0 >= context.descriptors.max_registered() {
            problems.push("all places for nodes are taken".to_owned());
        }
        if let Err(problem) = self_test(&context.listening).await {
            problems.push(problem);
        }
    }
    let healthy = problems.is_empty();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(api::Health { healthy, problems })).into_response())
}

/// Asks the daemon's own port whether it answers, as a client would.
async fn self_test(listening: &[SocketAddr]) -> Result<(), String> {
    // An inherited socket may have no address that could be connected to.
    let Some(address) = listening.first() else { return Ok(()) };
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    match ask::port_please(address, "pmd-self-test", SELF_TEST).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the daemon does not answer on {address}: {error}")),
    }
}

pub(super) async fn stop(State(context): Shared) -> (StatusCode, Json<api::Stopping>) {
    // Connections that are being answered get their answers before the end, this one included.
    context.shutdown.request(Reason::Stop);
    (StatusCode::ACCEPTED, Json(api::Stopping { pid: std::process::id() }))
}

pub(super) async fn reload(State(context): Shared) -> Answer<api::Reloaded> {
    let invalid = |message: String, hint: String| ApiError::new(ErrorCode::InvalidRequest, message, hint);
    let done = tokio::task::spawn_blocking(move || crate::control::server::reload(&context)).await;
    let done = done.map_err(|error| invalid(error.to_string(), "try again".into()))?;
    done.map(Json).map_err(|error| invalid(error.to_string(), error.hint()))
}
