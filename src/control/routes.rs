//! What each path of the control API answers.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use pmd_protocol::{NodeName, ServiceName};
use serde::de::DeserializeOwned;

use super::api::{self, ErrorCode};
use super::events::{self, Wanted};
use super::hold::Hold;
use super::reload;
use super::server::{MAX_REQUEST, PATIENCE};
use crate::daemon::Context;
use crate::daemon::context::now_ms;
use crate::daemon::descriptors::Class;
use crate::daemon::shutdown::Reason;
use crate::epmd::holder::Connection;
use crate::registry::names::{Claim, Registration};
use crate::registry::services::{self, MAX_SERVICES, Registered, Service, ServiceError};

/// Descriptors below which a warning is due.
const FEW_DESCRIPTORS: usize = 4096;
/// Names that are put into one piece of a list, so that a long list is never in memory as a whole.
const NAMES_AT_ONCE: usize = 256;
/// How long the daemon waits for itself when it is asked whether it is ready.
const SELF_TEST: Duration = Duration::from_secs(2);

type Shared = State<Arc<Context>>;
type Answer<T> = Result<Json<T>, ApiError>;

/// All paths.
pub fn router(context: Arc<Context>) -> Router {
    let paths = Router::new()
        .route("/status", get(status))
        .route("/health", get(health))
        .route("/names", get(names))
        .route("/names/adopt", post(adopt))
        .route("/services", get(list_services).post(register))
        .route("/services/hold", post(hold))
        .route("/services/{name}", delete(unregister))
        .route("/lookup", get(lookup))
        .route("/events", get(subscribe))
        .route("/stop", post(stop))
        .route("/reload", post(reload));
    Router::new()
        .nest(api::PREFIX, paths)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(read_body))
        .with_state(context)
}

/// An answer that is an error.
#[derive(Debug)]
struct ApiError {
    code: ErrorCode,
    message: String,
    hint: String,
}

impl ApiError {
    fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), hint: hint.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error =
            api::ErrorInfo { code: self.code.as_str().to_owned(), message: self.message, hint: self.hint };
        (status, Json(api::ErrorBody { error })).into_response()
    }
}

/// Reads the body, within its limits, before anything else looks at the request.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_REQUEST)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = format!("the body is longer than {MAX_REQUEST} bytes or did not come whole");
            return ApiError::new(ErrorCode::TooLarge, message, "split it into several requests")
                .into_response();
        }
        Err(_) => {
            let message = format!("the body did not come within {} s", PATIENCE.as_secs());
            return ApiError::new(ErrorCode::Timeout, message, "send the request again").into_response();
        }
    };
    let mut request = Request::from_parts(head, Body::empty());
    request.extensions_mut().insert(RequestBody(body));
    next.run(request).await
}

#[derive(Debug, Clone)]
struct RequestBody(Bytes);

impl RequestBody {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.0).map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("the body is not the JSON that this path takes: {error}"),
                "the README shows the body of every request",
            )
        })
    }
}

/// The parameters of a request, each of which must be known: a misspelt one would be a wrong answer.
#[derive(Debug)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(Query(given): Query<Vec<(String, String)>>, known: &[&str]) -> Result<Parameters, ApiError> {
        match given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("unknown parameter {name:?}"),
                format!("the parameters of this path are: {}", known.join(", ")),
            )),
            None => Ok(Parameters(given)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on: `name`, `name=true` or `name=1`.
    fn switch(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| matches!(value, "" | "1" | "true"))
    }
}

async fn no_such_path() -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        "there is no such path",
        "the paths are /v1/status, names, services, lookup, events, health, stop and reload",
    )
}

async fn no_such_method() -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        "the path does not take this method",
        "the README shows the method of every path",
    )
}

async fn status(State(context): Shared) -> Json<api::Status> {
    let (registered, old) = context.registry.count_names();
    let adopted = context.registry.all_names().iter().filter(|entry| is_adopted(entry)).count();
    let descriptors = &context.descriptors;
    Json(api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        boot_id: super::boot_id(&context),
        host: host_name(),
        port: context.settings.port,
        listening: context.listening.clone(),
        socket: context.settings.socket.clone(),
        started_at: api::timestamp(context.started_ms),
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
        warnings: warnings(&context, registered, adopted),
    })
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

async fn health(State(context): Shared, query: Query<Vec<(String, String)>>) -> Result<Response, ApiError> {
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
    match crate::takeover::ask::port_please(address, "pmd-self-test", SELF_TEST).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the daemon does not answer on {address}: {error}")),
    }
}

fn is_adopted(entry: &Registration<Connection>) -> bool {
    matches!(entry.claim, Claim::Adopted)
}

async fn names(State(context): Shared, query: Query<Vec<(String, String)>>) -> Result<Response, ApiError> {
    let adopted = Parameters::of(query, &["adopted"])?.switch("adopted");
    let mut entries = context.registry.all_names();
    if let Some(adopted) = adopted {
        entries.retain(|entry| is_adopted(entry) == adopted);
    }
    let now = now_ms();
    let host = serde_json::to_string(&host_name()).unwrap_or_default();
    let head = Bytes::from(format!("{{\"host\":{host},\"names\":["));
    let pieces = (0..entries.len()).step_by(NAMES_AT_ONCE).map(move |start| {
        let mut piece = Vec::new();
        for (offset, entry) in entries.iter().skip(start).take(NAMES_AT_ONCE).enumerate() {
            if start + offset > 0 {
                piece.push(b',');
            }
            // Plain data always has a JSON form.
            let _ = serde_json::to_writer(&mut piece, &name_on_the_wire(entry, now));
        }
        Bytes::from(piece)
    });
    let pieces = std::iter::once(head).chain(pieces).chain(std::iter::once(Bytes::from_static(b"]}")));
    let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

fn name_on_the_wire(entry: &Registration<Connection>, now: u64) -> api::Name {
    api::Name {
        name: entry.name.to_string(),
        port: entry.port,
        creation: entry.creation,
        registered_at: api::timestamp(entry.registered_ms),
        age_seconds: now.saturating_sub(entry.registered_ms) / 1000,
        node_type: entry.node_type,
        highest_version: entry.highest_version,
        lowest_version: entry.lowest_version,
        adopted: is_adopted(entry),
    }
}

async fn adopt(State(context): Shared, Extension(body): Extension<RequestBody>) -> Answer<api::AdoptOutcome> {
    let asked: api::Adopt = body.parse()?;
    for entry in &asked.names {
        let name = entry.name.parse::<NodeName>().map_err(|error| error.to_string());
        let extra = if entry.extra.len() > pmd_protocol::limits::MAX_EXTRA {
            Err("its extra field is too long".to_owned())
        } else {
            Ok(())
        };
        if let Err(reason) = name.map(drop).and(extra) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("{:?} cannot be registered: {reason}", entry.name),
                "leave it out; none of the names was taken over",
            ));
        }
    }
    let now = now_ms();
    let mut outcome = api::AdoptOutcome::default();
    for entry in &asked.names {
        if context.registry.count_names().0 >= context.descriptors.max_registered() {
            return Err(ApiError::new(
                ErrorCode::Full,
                "all places for nodes are taken",
                "raise the limit of open descriptors (ulimit -Hn) and restart the daemon",
            ));
        }
        if context.registry.adopt(&entry.as_alive2(), now) {
            outcome.adopted += 1;
        } else {
            outcome.registered += 1;
        }
    }
    Ok(Json(outcome))
}

async fn list_services(State(context): Shared) -> Json<api::ServiceList> {
    let services = context.registry.all_services().iter().map(service_on_the_wire).collect();
    Json(api::ServiceList { host: host_name(), services })
}

fn service_on_the_wire(service: &Service) -> api::ServiceInfo {
    api::ServiceInfo {
        name: service.name.to_string(),
        port: service.port,
        metadata: service.metadata.clone(),
        registered_at: api::timestamp(service.registered_ms),
        expires_at: service.expires_ms.map(api::timestamp),
        held: service.held,
    }
}

async fn register(
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

async fn hold(State(context): Shared, Extension(body): Extension<RequestBody>) -> Result<Response, ApiError> {
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
    let name: ServiceName = new.name.parse().map_err(|error: pmd_protocol::ServiceNameError| {
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
    let new = services::NewService { name, port: new.port, metadata: new.metadata, ttl_ms: new.ttl_ms, held };
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

async fn unregister(State(context): Shared, Path(name): Path<String>) -> Answer<api::ServiceInfo> {
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

async fn lookup(State(context): Shared, query: Query<Vec<(String, String)>>) -> Answer<api::Lookup> {
    let parameters = Parameters::of(query, &["name", "kind"])?;
    let Some(asked) = parameters.get("name") else {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the parameter name is missing",
            "for example: /v1/lookup?name=rabbit",
        ));
    };
    let kind = match parameters.get("kind") {
        None => None,
        Some("name") => Some(api::Kind::Name),
        Some("service") => Some(api::Kind::Service),
        Some(kind) => {
            let message = format!("unknown kind {kind:?}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, "the kinds are: name, service"));
        }
    };
    let own = host_name();
    let (name, host) = asked.rsplit_once('@').map_or((asked, None), |(name, host)| (name, Some(host)));
    if let Some(host) = host.filter(|host| !is_this_host(host, &own)) {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("this pmd does not know the host {host:?}"),
            format!(
                "it is not a member here, and this pmd knows only its own host, {own}: ask it with `pmd names {host}`"
            ),
        ));
    }
    let matches: Vec<_> = [find_name(&context, name, &own), find_service(&context, name, &own)]
        .into_iter()
        .flatten()
        .filter(|found| kind.is_none_or(|kind| kind == found.kind))
        .collect();
    if matches.is_empty() {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("nothing named {name:?} is registered on {own}"),
            "pmd names and pmd services list what is; --wait waits for it",
        ));
    }
    Ok(Json(api::Lookup { query: asked.to_owned(), matches }))
}

fn find_name(context: &Context, name: &str, host: &str) -> Option<api::Match> {
    let entry = context.registry.name(name)?;
    Some(api::Match {
        kind: api::Kind::Name,
        name: name.to_owned(),
        host: host.to_owned(),
        port: entry.port,
        metadata: services::Metadata::new(),
    })
}

fn find_service(context: &Context, name: &str, host: &str) -> Option<api::Match> {
    let service = context.registry.service(name)?;
    // One whose time is over but which nobody has removed yet.
    if service.expires_ms.is_some_and(|end| end <= now_ms()) {
        return None;
    }
    Some(api::Match {
        kind: api::Kind::Service,
        name: name.to_owned(),
        host: host.to_owned(),
        port: service.port,
        metadata: service.metadata,
    })
}

/// Whether `host` means the host that calls itself `own`: by its short or its long name, or as "this one".
fn is_this_host(host: &str, own: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    if host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return true;
    }
    // Where both are long names, the domains count as well.
    if host.contains('.') && own.contains('.') {
        return host.eq_ignore_ascii_case(own);
    }
    short(host) == short(own)
}

async fn subscribe(
    State(context): Shared,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let parameters = Parameters::of(query, &["since", "boot", "kind"])?;
    let invalid = |message: String, hint: String| ApiError::new(ErrorCode::InvalidRequest, message, hint);
    // A reader that comes back by itself repeats the first address, but tells its progress in the header.
    let last_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = match last_id.or(parameters.get("since")) {
        None => None,
        Some(number) => Some(number.parse().map_err(|_| {
            invalid(
                format!("{number:?} is not the number of an event"),
                "numbers start at 1; 0 means all".into(),
            )
        })?),
    };
    let mut kinds = Vec::new();
    for asked in parameters.all("kind").flat_map(|list| list.split(',')) {
        let Some(kind) = events::KINDS.into_iter().find(|kind| kind.as_str() == asked) else {
            let known = events::KINDS.map(|kind| kind.as_str()).join(", ");
            return Err(invalid(
                format!("unknown kind of event {asked:?}"),
                format!("the kinds are: {known}"),
            ));
        };
        kinds.push(kind);
    }
    let wanted = Wanted { since, boot: parameters.get("boot").map(str::to_owned), kinds };
    let body = Body::from_stream(events::send(context, wanted));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))], body).into_response())
}

async fn stop(State(context): Shared) -> (StatusCode, Json<api::Stopping>) {
    // Connections that are being answered get their answers before the end, this one included.
    context.shutdown.request(Reason::Stop);
    (StatusCode::ACCEPTED, Json(api::Stopping { pid: std::process::id() }))
}

async fn reload(State(context): Shared) -> Answer<api::Reloaded> {
    let invalid = |message: String, hint: String| ApiError::new(ErrorCode::InvalidRequest, message, hint);
    let settings = context.settings.clone();
    let done = tokio::task::spawn_blocking(move || reload::reload(&settings)).await;
    let done = done.map_err(|error| invalid(error.to_string(), "try again".into()))?;
    done.map(Json).map_err(|error| invalid(error.to_string(), error.hint()))
}

/// What this host calls itself, as `hostname` prints it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_short_and_its_long_name() {
        for host in ["web1", "WEB1", "web1.example.org", "localhost", "127.0.0.1", "::1"] {
            assert!(is_this_host(host, "web1"), "{host}");
            assert!(is_this_host(host, "web1.example.org"), "{host}");
        }
        assert!(!is_this_host("web1.example.com", "web1.example.org"));
        for host in ["web2", "web", "", "10.0.0.1", "web1x.example.org"] {
            assert!(!is_this_host(host, "web1"), "{host}");
        }
    }
}
