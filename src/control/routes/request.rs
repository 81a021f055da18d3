//! Shared by all handlers: request parameters, request bodies and errors.

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::control::api::{self, ErrorCode};
use crate::control::endpoints;
use crate::control::limits::{MAX_REQUEST, REQUEST_TIMEOUT};

/// The parameters of a request.
pub(super) type Asked = Query<Vec<(String, String)>>;
/// The result of most handlers.
pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError {
    code: ErrorCode,
    message: String,
    hint: String,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), hint: hint.into() }
    }

    /// The error in the body of the response.
    pub(super) fn into_info(self) -> api::ErrorInfo {
        api::ErrorInfo { code: self.code.as_str().to_owned(), message: self.message, hint: self.hint }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = self.into_info();
        (status, Json(api::ErrorBody { error })).into_response()
    }
}

/// Reads the body, within its limits, before the handler runs.
pub(super) async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, to_bytes(body, MAX_REQUEST)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = format!("the body is longer than {MAX_REQUEST} bytes, or incomplete");
            return ApiError::new(ErrorCode::TooLarge, message, "split it into several requests")
                .into_response();
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", REQUEST_TIMEOUT.as_secs());
            return ApiError::new(ErrorCode::Timeout, message, "send the request again").into_response();
        }
    };
    let mut request = Request::from_parts(head, Body::empty());
    request.extensions_mut().insert(RequestBody(body));
    next.run(request).await
}

#[derive(Debug, Clone)]
pub(super) struct RequestBody(Bytes);

impl RequestBody {
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.0).map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("the body is not the JSON that this path takes: {error}"),
                "docs/reference.md shows the body of every request",
            )
        })
    }
}

/// The parameters of a request. Unknown ones are errors, because ignoring a misspelt one would give a wrong answer.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(Query(given): Asked, known: &[&str]) -> Result<Parameters, ApiError> {
        match given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("unknown parameter {name:?}"),
                format!("the parameters of this path are: {}", known.join(", ")),
            )),
            None => Ok(Parameters(given)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: `name`, `name=true` or `name=1`.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| matches!(value, "" | "1" | "true"))
    }
}

pub(super) async fn no_such_path() -> ApiError {
    let paths: Vec<&str> = endpoints::paths().collect();
    ApiError::new(ErrorCode::NotFound, "no such path", format!("the paths are: {}", paths.join(", ")))
}

pub(super) async fn no_such_method() -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        "this path does not support this method",
        "docs/reference.md lists the methods of every path",
    )
}
