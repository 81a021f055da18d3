//! The daemon itself: status, health, stop and reload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use pmd_epmd::client;
use pmd_epmd::descriptors::Class;

use super::request::{Answer, ApiError, Asked, Parameters};
use super::{cluster, expulsions, rotation, tunnel, warnings};
use crate::base::clock::{Monotonic, now_ms};
use crate::base::shutdown::{Reason, Shutdown};
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{About, MaybeMember, Measured};
use crate::control::json::timestamp;
use crate::control::reload::Reloader;
use crate::directory::Directory;
use crate::directory::services::MAX_SERVICES;

/// Descriptor limits below this cause a warning.
const FEW_DESCRIPTORS: usize = 4096;
/// How long the readiness check waits for an answer on the daemon's own port.
const SELF_TEST: Duration = Duration::from_secs(2);

pub(super) async fn status(
    State(about): State<Arc<About>>,
    State(measured): State<Measured>,
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Answer<api::Status> {
    let ask = Parameters::of(query, &["ask"])?.switch("ask") == Some(true);
    let local = directory.local();
    let (registered, old) = local.names().count();
    let adopted = local.names().adopted().len();
    let descriptors = &measured.descriptors;
    let mut warnings = warnings(&measured, registered, adopted);
    let (mut cluster, mut tunnels) = (None, None);
    if let Some(member) = &member {
        let view = member.cluster.core().view().await?;
        warnings.extend(warnings::warnings(&member.cluster, &view));
        if let Some(problem) = member.claims.as_ref().and_then(|claims| claims.problem()) {
            warnings.push(format!("this host does not vote about claims: {problem}; see pmd voters"));
        }
        warnings.extend(rotation::warning(&member.cluster).await);
        warnings.extend(expulsions::warnings(now_ms(), member.cluster.local(), &measured.refusals.list()));
        warnings.extend(member.tunnels.warnings());
        cluster = Some(cluster::status(&member.cluster, local, &view));
        tunnels = Some(tunnel::status(member));
        if ask {
            // The answers arrive later; the next status shows them.
            member.cluster.core().ask_digests().await?;
        }
    }
    Ok(Json(api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        boot_id: about.boot_id.clone(),
        host: about.host.clone(),
        port: about.port,
        listening: about.listening.clone(),
        socket: about.socket.clone(),
        started_at: timestamp(about.started_ms),
        uptime_seconds: about.started.elapsed().as_secs(),
        relaxed_command_check: about.relaxed_command_check,
        metadata: about.metadata.clone(),
        names: api::NameNumbers { registered, adopted, old, limit: descriptors.max_registered() },
        services: api::ServiceNumbers { registered: local.count_services(), limit: MAX_SERVICES },
        descriptors: api::DescriptorNumbers {
            limit: descriptors.limit(),
            registered: descriptors.count(Class::Registered),
            waiting: descriptors.count(Class::Waiting),
            refused: descriptors.count(Class::Refused),
        },
        counters: api::Counts { epmd: measured.epmd.read(), others: measured.counters.read() },
        tunnels,
        cluster,
        warnings,
    }))
}

fn warnings(measured: &Measured, registered: usize, adopted: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let limit = measured.descriptors.limit();
    let most = measured.descriptors.max_registered();
    if limit < FEW_DESCRIPTORS {
        warnings.push(format!(
            "only {limit} descriptors may be open, so at most {most} nodes can register: \
             raise the limit (LimitNOFILE of systemd, ulimit -Hn) and restart"
        ));
    }
    if registered >= most {
        warnings.push(format!("all {most} node slots are in use: no more nodes can register"));
    } else if registered >= most - most / 10 {
        warnings.push(format!("{registered} of {most} node slots are in use"));
    }
    match adopted {
        0 => {}
        1 => warnings.push("1 node taken over from another port mapper has not registered again yet".into()),
        _ => warnings.push(format!(
            "{adopted} nodes taken over from another port mapper have not registered again yet"
        )),
    }
    let failed = measured.epmd.accept_errors.get();
    if failed > 0 {
        warnings.push(format!("{failed} connections could not be accepted: see the daemon's log"));
    }
    if let Some(pressure) = measured.handshakes.pressure() {
        let since = Monotonic::from_ms(pressure.since_ms).elapsed().as_secs();
        warnings.push(format!(
            "too many connections that do not complete their handshake: {} had to give way in {since} s, the last from \
             {}; see the log and limit that address with a firewall",
            pressure.displaced, pressure.address
        ));
    }
    warnings
}

pub(super) async fn health(
    State(about): State<Arc<About>>,
    State(measured): State<Measured>,
    State(directory): State<Arc<Directory>>,
    State(shutdown): State<Shutdown>,
    query: Asked,
) -> Result<Response, ApiError> {
    let ready = Parameters::of(query, &["ready"])?.switch("ready").unwrap_or(false);
    let mut problems = Vec::new();
    if shutdown.requested().is_some() {
        problems.push("the daemon is shutting down".to_owned());
    }
    if ready {
        if directory.local().names().count().0 >= measured.descriptors.max_registered() {
            problems.push("all node slots are in use".to_owned());
        }
        if let Err(problem) = self_test(&about.listening).await {
            problems.push(problem);
        }
    }
    let healthy = problems.is_empty();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(api::Health { healthy, problems })).into_response())
}

/// Sends a lookup to the daemon's own port, as a client would.
async fn self_test(listening: &[SocketAddr]) -> Result<(), String> {
    // An inherited socket may have no address to connect to.
    let Some(address) = listening.first() else { return Ok(()) };
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    match client::port_please(address, "pmd-self-test", SELF_TEST).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the daemon does not answer on {address}: {error}")),
    }
}

pub(super) async fn stop(State(shutdown): State<Shutdown>) -> (StatusCode, Json<api::Stopping>) {
    // Requests in progress, including this one, are still answered.
    shutdown.request(Reason::Stop);
    (StatusCode::ACCEPTED, Json(api::Stopping { pid: std::process::id() }))
}

pub(super) async fn reload(State(reloader): State<Arc<Reloader>>) -> Answer<api::Reloaded> {
    let invalid = |message: String, hint: String| ApiError::new(ErrorCode::InvalidRequest, message, hint);
    let done = tokio::task::spawn_blocking(move || reloader.reload()).await;
    let done = done.map_err(|error| invalid(error.to_string(), "try again".into()))?;
    done.map(Json).map_err(|error| invalid(error.to_string(), error.hint()))
}
