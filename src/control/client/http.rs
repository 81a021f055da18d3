//! One HTTP request on a connection of its own to the control socket, or to the EPMD port.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::net::UnixStream;

use super::error::{ClientError, Result};
use super::page::{self, CONNECT, Page, Sender, sender_over};
use super::stream::parse;
use crate::control::api::{ErrorBody, Status};
use crate::control::endpoints::{Call, Method};

/// Maximum bytes of a response: far more than a list with one node for every port of a host.
const MAX_RESPONSE: usize = 128 * 1024 * 1024;
/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Sends requests to the daemon behind one control socket.
#[derive(Debug, Clone)]
pub(super) struct Http {
    pub(super) socket: PathBuf,
    /// How long each step of a response may take.
    pub(super) timeout: Duration,
    /// Where to read instead if this user may not use the socket.
    pub(super) page: Option<Page>,
}

impl Http {
    /// Sends a request and reads the whole body of a successful response.
    ///
    /// Boxed, so that it is not compiled into each kind of request.
    pub(super) fn ask(&self, call: Call, target: String, body: Bytes) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let body = self.open(call, &target, body).await?;
            self.collect(body).await
        })
    }

    /// Sends a request; returns the body of a successful response, to be read as it arrives.
    pub(super) async fn open(&self, call: Call, target: &str, body: Bytes) -> Result<Incoming> {
        let response = self.send(call, target, body).await?;
        let status = response.status();
        let body = response.into_body();
        if status.is_success() { Ok(body) } else { Err(self.error(status, body).await) }
    }

    /// Sends a request; returns the response, whatever its status.
    pub(super) async fn send(&self, call: Call, target: &str, body: Bytes) -> Result<Response<Incoming>> {
        match self.connect().await {
            Ok(sender) => self.send_over(sender, call, target, body).await,
            Err(error) => Box::pin(self.ask_page(call, target, body, error)).await,
        }
    }

    /// Sends a request over this connection.
    pub(super) async fn send_over(
        &self,
        mut sender: Sender,
        call: Call,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let method = match call.method() {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
            Method::Delete => hyper::Method::DELETE,
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Unexpected(error.to_string()))?;
        self.in_time(async { Ok(sender.send_request(request).await?) }).await
    }

    /// The error in the body of a response with this status.
    pub(super) async fn error(&self, status: StatusCode, body: Incoming) -> ClientError {
        let body = match self.collect(body).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => ClientError::Api { status: status.as_u16(), info: body.error },
            Err(_) => ClientError::Unexpected(format!("HTTP status {status}")),
        }
    }

    /// Reads a body to its end.
    pub(super) async fn collect(&self, body: Incoming) -> Result<Bytes> {
        self.in_time(async {
            let body = Limited::new(body, MAX_RESPONSE).collect().await;
            Ok(body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes())
        })
        .await
    }

    /// Runs `work` with the timeout.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| ClientError::Timeout { socket: self.socket.clone(), after: self.timeout };
        tokio::time::timeout(self.timeout, work).await.map_err(late)?
    }

    /// Sends a request to the EPMD port, if it serves this call, because the control socket failed with `error`.
    async fn ask_page(
        &self,
        call: Call,
        target: &str,
        body: Bytes,
        error: ClientError,
    ) -> Result<Response<Incoming>> {
        let Some(page) = self.page else { return Err(error) };
        let forbidden = matches!(error, ClientError::Forbidden { .. });
        let stands_in = forbidden || (page.any && error.is_absence());
        if !stands_in {
            return Err(error);
        }
        let (Some(web), Some(rest)) = (call.web(), target.strip_prefix(call.path())) else {
            return Err(error);
        };
        let Some(sender) = page::connect(page.port).await else { return Err(error) };
        if !page.any && !self.is_daemon_of_socket(page.port).await {
            return Err(error);
        }
        match self.send_over(sender, call, &format!("{}{rest}", web.path), body).await {
            // A daemon without a page closes the connection, as does every other program on that port.
            Err(ClientError::Lost(_)) if forbidden => {
                Err(ClientError::Closed { socket: self.socket.clone() })
            }
            Err(ClientError::Lost(_)) => Err(error),
            answer => answer,
        }
    }

    /// Whether the daemon on this port has this socket, or does not say, because its page is off.
    async fn is_daemon_of_socket(&self, port: u16) -> bool {
        match self.status_on(port).await {
            Ok(status) => status.is_none_or(|status| status.socket == self.socket),
            Err(_) => false,
        }
    }

    /// The status of the daemon on this port; none if its page is off.
    pub(super) async fn status_on(&self, port: u16) -> Result<Option<Status>> {
        let absent = || ClientError::Lost("nothing listens".to_owned());
        let sender = page::connect(port).await.ok_or_else(absent)?;
        let answer = self.send_over(sender, Call::Status, &target(Call::Status, &[]), Bytes::new()).await;
        let Ok(answer) = answer else { return Ok(None) };
        parse(&self.collect(answer.into_body()).await?).map(Some)
    }

    async fn connect(&self) -> Result<Sender> {
        let socket = || self.socket.clone();
        let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Forbidden { socket: socket() });
            }
            Ok(Err(source)) => return Err(ClientError::NotReachable { socket: socket(), source }),
            Err(_) => return Err(ClientError::Timeout { socket: socket(), after: CONNECT }),
        };
        sender_over(stream).await
    }
}

/// The target of a request without path variables.
pub(super) fn target(call: Call, query: &[(&str, &str)]) -> String {
    let mut target = call.path().to_owned();
    for (number, (key, value)) in query.iter().enumerate() {
        target.push(if number == 0 { '?' } else { '&' });
        target.extend([key, "="]);
        target.extend(utf8_percent_encode(value, RESERVED));
    }
    target
}

/// The target of a request whose path has the variable `name`.
pub(super) fn target_of(call: Call, name: &str) -> String {
    call.path().replace("{name}", &utf8_percent_encode(name, RESERVED).to_string())
}

/// The body of a request.
pub(super) fn json(body: &impl Serialize) -> Bytes {
    // Plain data always has a JSON form.
    serde_json::to_vec(body).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_a_name_stays_in_the_name() {
        assert_eq!(target_of(Call::Unregister, "rabbit-1_a.b~c"), "/v1/services/rabbit-1_a.b~c");
        assert_eq!(
            target(Call::Lookup, &[("name", "a/b?c&d=e@f g\n%ä"), ("kind", "name")]),
            "/v1/lookup?name=a%2Fb%3Fc%26d%3De%40f%20g%0A%25%C3%A4&kind=name"
        );
    }
}
