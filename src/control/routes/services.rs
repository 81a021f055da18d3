//! Services.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use pmd_protocol::{ServiceName, ServiceNameError};

use super::names::in_cluster;
use super::request::{ApiError, Parameters, RequestBody};
use super::{Answer, Asked, Shared, cluster};
use crate::base::clock::now_ms;
use crate::control::api::{self, ErrorCode};
use crate::control::hold::Hold;
use crate::control::json::timestamp;
use crate::daemon::Context;
use crate::directory::services::{NewService, Registered, Service, ServiceError};

pub(super) async fn list(State(context): Shared, query: Asked) -> Result<Response, ApiError> {
    if in_cluster(&Parameters::of(query, &["scope"])?)? {
        return Ok(Json(cluster::services(cluster::of(&context)?).await?).into_response());
    }
    let services = context.registry.all_services().iter().map(service_on_the_wire).collect();
    Ok(Json(api::ServiceList { host: context.settings.host.clone(), services }).into_response())
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
    State(context): Shared,
    Extension(body): Extension<RequestBody>,
) -> Result<Response, ApiError> {
    let registered = register_service(&context, body.parse()?, false)?;
    let (status, service) = match &registered {
        Registered::New(service) => (StatusCode::CREATED, service),
        Registered::Renewed(service) => (StatusCode::OK, service),
    };
    Ok((status, Json(service_on_the_wire(service))).into_response())
}

pub(super) async fn hold(
    State(context): Shared,
    Extension(body): Extension<RequestBody>,
) -> Result<Response, ApiError> {
    let new: api::NewService = body.parse()?;
    if new.ttl_ms.is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "a held service has no time to live: it lives as long as the connection",
            "leave ttl_ms out, or register it with POST /v1/services",
        ));
    }
    let (Registered::New(service) | Registered::Renewed(service)) = register_service(&context, new, true)?;
    let hold = Hold::new(context, &service.name, service.id);
    let body = Body::from_stream(hold.stream(&service_on_the_wire(&service)));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

fn register_service(context: &Context, new: api::NewService, held: bool) -> Result<Registered, ApiError> {
    let name: ServiceName = new.name.parse().map_err(|error: ServiceNameError| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            error.to_string(),
            "a service name has 1 to 255 bytes without white space and without @",
        )
    })?;
    if new.ttl_ms == Some(0) {
        let message = "a time to live of 0 would end the service at once";
        return Err(ApiError::new(ErrorCode::InvalidRequest, message, "give it at least 1 ms"));
    }
    let new = NewService { name, port: new.port, metadata: new.metadata, ttl_ms: new.ttl_ms, held };
    context.registry.register_service(new, now_ms()).map_err(|error| {
        let (code, hint) = match &error {
            ServiceError::Taken { name, .. } => (
                ErrorCode::Conflict,
                format!("choose another name, or end the other one: pmd unregister {name}"),
            ),
            ServiceError::Port => (ErrorCode::InvalidRequest, "give a port from 1 to 65535".to_owned()),
            ServiceError::TooMany => (
                ErrorCode::Full,
                "unregister services that are not needed; pmd services lists them".to_owned(),
            ),
            ServiceError::Metadata => (ErrorCode::InvalidRequest, "keep the metadata short".to_owned()),
        };
        ApiError::new(code, error.to_string(), hint)
    })
}

pub(super) async fn unregister(State(context): Shared, Path(name): Path<String>) -> Answer<api::ServiceInfo> {
    match context.registry.unregister_service(&name, now_ms()) {
        Some(service) => Ok(Json(service_on_the_wire(&service))),
        None if context.registry.name(&name).is_some() => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("{name:?} is an Erlang node, not a service"),
            "an Erlang node is registered as long as it runs: stop the node",
        )),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("no service named {name:?} is registered here"),
            "pmd services lists the services",
        )),
    }
}
