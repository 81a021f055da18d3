//! The client's side of the control API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api;
use super::events::{Message, Reader};
use super::hold;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take, unless somebody is less patient.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer: far more than a list of as many nodes as a host has ports.
const MAX_ANSWER: usize = 128 * 1024 * 1024;
/// Bytes of names that are handed over in one request, below the server's limit for a body.
const ADOPT_BYTES: usize = 48 * 1024;

/// Talks to the daemon behind one control socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens.
    #[error("no pmd answers on {}", .socket.display())]
    NotReachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// This user may not use the socket.
    #[error("no permission to use {}", .socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// A daemon listens, but does not answer.
    #[error("the pmd behind {} did not answer within {} s", .socket.display(), .after.as_secs())]
    Late {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection ended in the middle.
    #[error("the connection to pmd was lost: {0}")]
    Lost(String),
    /// The answer is an error.
    #[error("{}", .info.message)]
    Api {
        /// The HTTP status.
        status: u16,
        /// What went wrong.
        info: api::ErrorInfo,
    },
    /// The answer is not one of a daemon of this version.
    #[error("the answer is not what this version of pmd understands: {0}")]
    Strange(String),
}

impl ClientError {
    /// What to do next.
    pub fn hint(&self) -> String {
        let hint = match self {
            ClientError::NotReachable { .. } | ClientError::Lost(_) => {
                "start it: pmd start (--port and --socket choose another one)"
            }
            ClientError::Forbidden { .. } => {
                "run the command as the user who runs the daemon, or let a group in with control_group \
                 in its configuration file"
            }
            ClientError::Late { .. } => "look at the daemon's log, and whether the host is overloaded",
            ClientError::Strange(_) => {
                "compare the versions: pmd version, and pmd status; restart the daemon after an update"
            }
            ClientError::Api { info, .. } => &info.hint,
        };
        hint.to_owned()
    }

    /// Whether a daemon may be there again a little later.
    pub fn is_absence(&self) -> bool {
        matches!(self, ClientError::NotReachable { .. } | ClientError::Lost(_))
    }
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> ClientError {
        ClientError::Lost(error.to_string())
    }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// A client for the daemon behind `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into(), patience: ANSWER }
    }

    /// The same client, which waits for an answer no longer than this.
    pub fn with_patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the daemon is.
    pub async fn status(&self) -> Result<api::Status> {
        self.get("/status").await
    }

    /// The same; its peers are asked what they have, for the next time that this is asked.
    pub async fn status_asking_peers(&self) -> Result<api::Status> {
        self.get("/status?ask").await
    }

    /// Whether the daemon is well.
    pub async fn health(&self, ready: bool) -> Result<api::Health> {
        let path = if ready { "/health?ready" } else { "/health" };
        let response = self.send(Method::GET, path, None).await?;
        match response.status() {
            // The complaints are the answer.
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {
                parse(&self.collect(response.into_body()).await?)
            }
            _ => parse(&self.collect(self.expect_success(response).await?).await?),
        }
    }

    /// The registered nodes, the newest first; `adopted` chooses those that have not come back, or have.
    pub async fn names(&self, adopted: Option<bool>) -> Result<api::NameList> {
        match adopted {
            None => self.get("/names").await,
            Some(adopted) => self.get(&format!("/names?adopted={adopted}")).await,
        }
    }

    /// The registered services.
    pub async fn services(&self) -> Result<api::ServiceList> {
        self.get("/services").await
    }

    /// Whatever goes by a name, which may end in `@HOST`.
    pub async fn lookup(&self, name: &str) -> Result<api::Lookup> {
        self.get(&format!("/lookup?name={}", percent_encoded(name))).await
    }

    /// Registers or renews a service.
    pub async fn register(&self, service: &api::NewService) -> Result<api::ServiceInfo> {
        self.post("/services", service).await
    }

    /// Registers a service for as long as the value that is returned lives.
    pub async fn hold(&self, service: &api::NewService) -> Result<Held> {
        let response = self.send(Method::POST, "/services/hold", Some(json(service))).await?;
        let mut lines = Lines::new(self.expect_success(response).await?);
        let line = self.in_time(lines.next()).await?;
        let line = line.ok_or_else(|| ClientError::Lost("the daemon has ended".into()))?;
        Ok(Held { service: parse(line.as_bytes())?, lines })
    }

    /// Ends a service.
    pub async fn unregister(&self, name: &str) -> Result<api::ServiceInfo> {
        let path = format!("/services/{}", percent_encoded(name));
        parse(&self.ask(Method::DELETE, &path, None).await?)
    }

    /// Ends the daemon.
    pub async fn stop(&self) -> Result<api::Stopping> {
        self.post("/stop", &()).await
    }

    /// Makes the daemon read its configuration file again.
    pub async fn reload(&self) -> Result<api::Reloaded> {
        self.post("/reload", &()).await
    }

    /// Makes the daemon answer for names of another port mapper; as many requests as it takes.
    pub async fn adopt(&self, names: &[api::AdoptedName]) -> Result<api::AdoptOutcome> {
        let mut outcome = api::AdoptOutcome::default();
        let mut rest = names;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|name| {
                bytes += serde_json::to_vec(name).map_or(0, |json| json.len() + 1);
                bytes <= ADOPT_BYTES
            });
            // One name alone always fits.
            let (now, later) = rest.split_at(fitting.count().max(1).min(rest.len()));
            let done: api::AdoptOutcome =
                self.post("/names/adopt", &api::Adopt { names: now.to_vec() }).await?;
            outcome.adopted += done.adopted;
            outcome.registered += done.registered;
            rest = later;
        }
        Ok(outcome)
    }

    /// The stream of events: those after `since` of the daemon's start `boot`, or those from now on.
    pub async fn events(&self, since: Option<u64>, boot: Option<&str>, kinds: &[String]) -> Result<Events> {
        let mut parameters: Vec<String> = Vec::new();
        parameters.extend(since.map(|since| format!("since={since}")));
        parameters.extend(boot.map(|boot| format!("boot={}", percent_encoded(boot))));
        parameters.extend(kinds.iter().map(|kind| format!("kind={}", percent_encoded(kind))));
        let path = format!("/events?{}", parameters.join("&"));
        let response = self.send(Method::GET, &path, None).await?;
        let body = self.expect_success(response).await?;
        Ok(Events { body, reader: Reader::default(), ready: Vec::new().into_iter() })
    }

    /// Joins the cluster of whoever answers at these addresses. It may take as long as the request says, and a little more.
    pub async fn join(&self, join: &api::Join) -> Result<api::Joined> {
        self.post("/join", join).await
    }

    /// Leaves the cluster, or drops one peer.
    pub async fn leave(&self, leave: &api::Leave) -> Result<api::LeftCluster> {
        self.post("/leave", leave).await
    }

    /// The metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String> {
        self.text("/metrics").await
    }

    /// The latest lines of the daemon's log.
    pub async fn log(&self) -> Result<String> {
        self.text("/log").await
    }

    async fn text(&self, path: &str) -> Result<String> {
        let response = self.send(Method::GET, path, None).await?;
        let body = self.expect_success(response).await?;
        let text = String::from_utf8(self.collect(body).await?.into());
        text.map_err(|error| ClientError::Strange(error.to_string()))
    }

    /// The daemons of the cluster.
    pub async fn nodes(&self) -> Result<api::NodeList> {
        self.get("/nodes").await
    }

    /// The links to other daemons.
    pub async fn peers(&self) -> Result<api::PeerList> {
        self.get("/peers").await
    }

    /// Daemons that were refused.
    pub async fn refusals(&self) -> Result<api::RefusalList> {
        self.get("/refusals").await
    }

    /// Whether another daemon can be reached.
    pub async fn reach(&self, reach: &api::Reach) -> Result<api::Reached> {
        self.post("/reach", reach).await
    }

    /// Erlang nodes in the whole cluster, or on one of its hosts.
    pub async fn cluster_names(&self, host: Option<&str>) -> Result<api::ClusterNameList> {
        let host = host.map(|host| format!("&host={}", percent_encoded(host))).unwrap_or_default();
        self.get(&format!("/names?scope=cluster{host}")).await
    }

    /// Services in the whole cluster.
    pub async fn cluster_services(&self) -> Result<api::ClusterServiceList> {
        self.get("/services?scope=cluster").await
    }

    /// Aliases and tunnels, and the files for Erlang nodes.
    pub async fn tunnels(&self) -> Result<api::TunnelList> {
        self.get("/tunnels").await
    }

    /// The same, once the files for Erlang nodes show the hosts that there are, or cannot do so for now.
    pub async fn tunnels_for_a_node(&self) -> Result<api::TunnelList> {
        self.get("/tunnels?for=node").await
    }

    /// Whether the way to a node is open.
    pub async fn ping(&self, ping: &api::Ping) -> Result<api::Pinged> {
        self.post("/ping", ping).await
    }

    /// What discovery has found.
    pub async fn discover(&self) -> Result<api::Discovered> {
        self.get("/discover").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(&self.ask(Method::GET, path, None).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        parse(&self.ask(Method::POST, path, Some(json(body))).await?)
    }

    /// A request and the body of its answer. Boxed: it would be part of the code of each kind of request otherwise.
    fn ask<'a>(&'a self, method: Method, path: &'a str, body: Option<Bytes>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let response = self.send(method, path, body).await?;
            let body = self.expect_success(response).await?;
            self.collect(body).await
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Response<Incoming>> {
        let mut sender = self.connect().await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1{path}"))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Strange(error.to_string()))?;
        self.in_time(async { Ok(sender.send_request(request).await?) }).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let socket = || self.socket.clone();
        let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Forbidden { socket: socket() });
            }
            Ok(Err(source)) => return Err(ClientError::NotReachable { socket: socket(), source }),
            Err(_) => return Err(ClientError::Late { socket: socket(), after: CONNECT }),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender and the answer; what goes wrong, they tell.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn expect_success(&self, response: Response<Incoming>) -> Result<Incoming> {
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = self.collect(response.into_body()).await?;
        match serde_json::from_slice::<api::ErrorBody>(&body) {
            Ok(body) => Err(ClientError::Api { status: status.as_u16(), info: body.error }),
            Err(_) => Err(ClientError::Strange(format!("HTTP status {status}"))),
        }
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes> {
        self.in_time(async {
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            Ok(body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes())
        })
        .await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Late { socket: self.socket.clone(), after: self.patience }),
        }
    }
}

/// A service that lives as long as this value and the daemon.
#[derive(Debug)]
pub struct Held {
    /// The service.
    pub service: api::ServiceInfo,
    lines: Lines,
}

impl Held {
    /// Waits until the daemon lets go: with its own reason, or with none if the connection was lost.
    pub async fn ended(&mut self) -> Option<String> {
        let line = self.lines.next().await.ok()??;
        serde_json::from_str(&line).ok().map(|hold::Ended { ended }| ended)
    }
}

/// The lines of an answer that comes bit by bit.
#[derive(Debug)]
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// Longest line: far more than a service with all the metadata it may have.
    const MAX_LINE: usize = 256 * 1024;

    fn new(body: Incoming) -> Lines {
        Lines { body, rest: Vec::new() }
    }

    async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.rest.len() > Lines::MAX_LINE {
                return Err(ClientError::Strange("a line is too long".into()));
            }
            match piece(&mut self.body).await? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// The events of a daemon, until its end.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    reader: Reader,
    ready: std::vec::IntoIter<Message>,
}

impl Events {
    /// The next message; none at the end of the daemon.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.ready.next() {
                return Ok(Some(message));
            }
            let Some(piece) = piece(&mut self.body).await? else { return Ok(None) };
            let messages = self.reader.push(&piece);
            self.ready = messages.map_err(|error| ClientError::Strange(error.to_string()))?.into_iter();
        }
    }
}

async fn piece(body: &mut Incoming) -> Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn json(body: &impl Serialize) -> Bytes {
    // Plain data always has a JSON form.
    serde_json::to_vec(body).unwrap_or_default().into()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| ClientError::Strange(error.to_string()))
}

/// Text as it may stand in a path or a query (RFC 3986, section 2.1).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_has_in_it_stays_in_the_name() {
        assert_eq!(percent_encoded("rabbit-1_a.b~c"), "rabbit-1_a.b~c");
        assert_eq!(percent_encoded("a/b?c&d=e@f g\n%ä"), "a%2Fb%3Fc%26d%3De%40f%20g%0A%25%C3%A4");
    }
}
