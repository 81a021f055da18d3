//! Listing, registering and removing services.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use pmd_protocol::{ServiceName, ServiceNameError};

use super::cluster;
use super::names::in_cluster;
use super::request::{Answer, ApiError, Asked, Parameters, RequestBody};
use crate::base::clock::now_ms;
use crate::base::shutdown::Shutdown;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::MaybeMember;
use crate::control::hold::Hold;
use crate::control::json::timestamp;
use crate::directory::Directory;
use crate::directory::local::Local;
use crate::directory::services::{NewService, Registered, Service, ServiceError};

pub(super) async fn list(
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Result<Response, ApiError> {
    if in_cluster(&Parameters::of(query, &["scope"])?)? {
        return Ok(Json(cluster::services(&directory, cluster::of(&member)?)).into_response());
    }
    let local = directory.local();
    let services = local.all_services().iter().map(service_on_the_wire).collect();
    Ok(Json(api::ServiceList { host: local.host().to_owned(), services }).into_response())
}

fn service_on_the_wire(service: &Service) -> api::ServiceInfo {
    api::ServiceInfo {
        name: service.name.to_string(),
        port: service.port,
        metadata: service.metadata.clone(),
        registered_at: timestamp(service.registered_ms),
        expires_at: service.expires_ms.map(timestamp),
        held: service.held,
    }
}

pub(super) async fn register(
    State(directory): State<Arc<Directory>>,
    Extension(body): Extension<RequestBody>,
) -> Result<Response, ApiError> {
    let registered = register_service(directory.local(), body.parse()?, false)?;
    let (status, service) = match &registered {
        Registered::New(service) => (StatusCode::CREATED, service),
        Registered::Renewed(service) => (StatusCode::OK, service),
    };
    Ok((status, Json(service_on_the_wire(service))).into_response())
}

pub(super) async fn hold(
    State(directory): State<Arc<Directory>>,
    State(shutdown): State<Shutdown>,
    Extension(body): Extension<RequestBody>,
) -> Result<Response, ApiError> {
    let new: api::NewService = body.parse()?;
    if new.ttl_ms.is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "a held service cannot have a ttl_ms: it lasts as long as its connection",
            "omit ttl_ms, or use POST /v1/services",
        ));
    }
    let (Registered::New(service) | Registered::Renewed(service)) =
        register_service(directory.local(), new, true)?;
    let hold = Hold::new(Arc::clone(directory.local()), shutdown, &service.name, service.id);
    let body = Body::from_stream(hold.stream(&service_on_the_wire(&service)));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

fn register_service(local: &Local, new: api::NewService, held: bool) -> Result<Registered, ApiError> {
    let name: ServiceName = new.name.parse().map_err(|error: ServiceNameError| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            error.to_string(),
            "a service name has 1 to 255 bytes, without whitespace or @",
        )
    })?;
    if new.ttl_ms == Some(0) {
        let message = "with a ttl_ms of 0, the service would expire at once";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message, "use at least 1"));
    }
    let new = NewService { name, port: new.port, metadata: new.metadata, ttl_ms: new.ttl_ms, held };
    local.register_service(new, now_ms()).map_err(|error| {
        let (code, hint) = match &error {
            ServiceError::Taken { name, .. } => (
                ErrorCode::Conflict,
                format!("choose another name, or remove that service: pmd unregister {name}"),
            ),
            ServiceError::Port => (ErrorCode::InvalidRequest, "use a port from 1 to 65535".to_owned()),
            ServiceError::TooMany => {
                (ErrorCode::Full, "unregister unused services; pmd services lists them".to_owned())
            }
            ServiceError::Metadata => (ErrorCode::InvalidRequest, "shorten the metadata".to_owned()),
        };
        ApiError::new(code, error.to_string(), hint)
    })
}

pub(super) async fn unregister(
    State(directory): State<Arc<Directory>>,
    Path(name): Path<String>,
) -> Answer<api::ServiceInfo> {
    let local = directory.local();
    match local.unregister_service(&name, now_ms()) {
        Some(service) => Ok(Json(service_on_the_wire(&service))),
        None if local.names().get(&name).is_some() => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("{name:?} is an Erlang node, not a service"),
            "an Erlang node stays registered while it runs: stop the node",
        )),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("no service named {name:?} is registered here"),
            "pmd services lists the services",
        )),
    }
}
