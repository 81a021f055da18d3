//! The client of the control API.

mod error;
mod http;
mod page;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api;
use super::endpoints::Call;
use http::{Http, json, target, target_of};
use stream::parse;

pub use error::{ClientError, Result};
pub use page::Page;
pub use stream::{ClaimUpdate, Events, Held, HeldClaim, Message};

/// How long a response may take by default.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a claim may be waited for: without end.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Bytes of names adopted in one request, below the server's limit for a body.
const ADOPT_BYTES: usize = 48 * 1024;

/// Talks to the daemon behind one control socket.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
}

impl Client {
    /// A client of the daemon behind `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { http: Http { socket: socket.into(), timeout: TIMEOUT, page: None } }
    }

    /// The same client; if it may not use the socket, it reads from the daemon's EPMD port instead.
    pub fn with_page(mut self, page: Page) -> Client {
        self.http.page = Some(page);
        self
    }

    /// The status of the daemon on this port, if its page tells.
    pub async fn status_on_page(port: u16, timeout: Duration) -> Option<api::Status> {
        Http { socket: PathBuf::new(), timeout, page: None }.status_on(port).await.ok().flatten()
    }

    /// The same client with a different response timeout.
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.http.timeout = timeout;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.http.socket
    }

    /// The status of the daemon.
    pub async fn status(&self) -> Result<api::Status> {
        self.get(Call::Status, &[]).await
    }

    /// The same; the daemon also asks its peers for their fingerprints, which the next status shows.
    pub async fn status_asking_peers(&self) -> Result<api::Status> {
        self.get(Call::Status, &[("ask", "")]).await
    }

    /// Whether the daemon is healthy; with `ready`, also whether nodes can register.
    pub async fn health(&self, ready: bool) -> Result<api::Health> {
        let query: &[_] = if ready { &[("ready", "")] } else { &[] };
        let response = self.http.send(Call::Health, &target(Call::Health, query), Bytes::new()).await?;
        let (status, body) = (response.status(), response.into_body());
        match status {
            // An unhealthy daemon answers with its problems.
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => parse(&self.http.collect(body).await?),
            _ => Err(self.http.error(status, body).await),
        }
    }

    /// The registered nodes, newest first; `adopted` selects those that have not registered again, or all others.
    pub async fn names(&self, adopted: Option<bool>) -> Result<api::NameList> {
        match adopted {
            None => self.get(Call::Names, &[]).await,
            Some(adopted) => self.get(Call::Names, &[("adopted", &adopted.to_string())]).await,
        }
    }

    /// The registered services.
    pub async fn services(&self) -> Result<api::ServiceList> {
        self.get(Call::Services, &[]).await
    }

    /// The nodes and services of this name, which may end in `@HOST`.
    pub async fn lookup(&self, name: &str) -> Result<api::Lookup> {
        self.get(Call::Lookup, &[("name", name)]).await
    }

    /// Registers or renews a service.
    pub async fn register(&self, service: &api::NewService) -> Result<api::ServiceInfo> {
        self.post(Call::Register, service).await
    }

    /// Registers a service for as long as the returned value lives.
    pub async fn hold(&self, service: &api::NewService) -> Result<Held> {
        let body = self.http.open(Call::Hold, Call::Hold.path(), json(service)).await?;
        self.http.in_time(Held::read(body)).await
    }

    /// Removes a service.
    pub async fn unregister(&self, name: &str) -> Result<api::ServiceInfo> {
        let target = target_of(Call::Unregister, name);
        parse(&self.http.ask(Call::Unregister, target, Bytes::new()).await?)
    }

    /// Claims a name for as long as the returned value lives. Waits as long as the request says.
    pub async fn hold_claim(&self, claim: &api::NewClaim) -> Result<HeldClaim> {
        let client = Client { http: Http { timeout: LONGEST, ..self.http.clone() } };
        let body = client.http.open(Call::HoldClaim, Call::HoldClaim.path(), json(claim)).await?;
        client.http.in_time(HeldClaim::read(body)).await
    }

    /// Releases a claim of this host.
    pub async fn release_claim(&self, claim: &api::ReleaseClaim) -> Result<api::ReleaseClaim> {
        self.post(Call::ReleaseClaim, claim).await
    }

    /// The claims that are held.
    pub async fn claims(&self) -> Result<api::ClaimList> {
        self.get(Call::Claims, &[]).await
    }

    /// The voters.
    pub async fn voters(&self) -> Result<api::VoterList> {
        self.get(Call::Voters, &[]).await
    }

    /// Stops the daemon.
    pub async fn stop(&self) -> Result<api::Stopping> {
        self.post(Call::Stop, &()).await
    }

    /// Makes the daemon reread its configuration file, cluster secret and certificates.
    pub async fn reload(&self) -> Result<api::Reloaded> {
        self.post(Call::Reload, &()).await
    }

    /// Makes the daemon answer for the names of another port mapper, in several requests if necessary.
    pub async fn adopt(&self, names: &[api::AdoptedName]) -> Result<api::AdoptOutcome> {
        let mut outcome = api::AdoptOutcome::default();
        let mut rest = names;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|name| {
                bytes += serde_json::to_vec(name).map_or(0, |json| json.len() + 1);
                bytes <= ADOPT_BYTES
            });
            // A single name always fits.
            let (now, later) = rest.split_at(fitting.count().max(1).min(rest.len()));
            let done: api::AdoptOutcome = self.post(Call::Adopt, &api::Adopt { names: now.to_vec() }).await?;
            outcome.adopted += done.adopted;
            outcome.registered += done.registered;
            rest = later;
        }
        Ok(outcome)
    }

    /// The stream of events: those after number `since` of the daemon's start `boot`, or only new ones.
    pub async fn events(&self, since: Option<u64>, boot: Option<&str>, kinds: &[String]) -> Result<Events> {
        let since = since.map(|since| since.to_string());
        let mut query: Vec<(&str, &str)> = kinds.iter().map(|kind| ("kind", kind.as_str())).collect();
        query.extend(since.as_deref().map(|since| ("since", since)));
        query.extend(boot.map(|boot| ("boot", boot)));
        let body = self.http.open(Call::Events, &target(Call::Events, &query), Bytes::new()).await?;
        Ok(Events::new(body))
    }

    /// Joins the cluster of the daemons at these addresses. Can take a little longer than the timeout in the request.
    pub async fn join(&self, join: &api::Join) -> Result<api::Joined> {
        self.post(Call::Join, join).await
    }

    /// Leaves the cluster, or tells another member to leave.
    pub async fn leave(&self, leave: &api::Leave) -> Result<api::LeftCluster> {
        self.post(Call::Leave, leave).await
    }

    /// How far the latest rotation of the cluster secret is.
    pub async fn rotation(&self) -> Result<api::Rotation> {
        self.get(Call::Rotation, &[]).await
    }

    /// Begins a rotation of the cluster secret, or finishes the one that is in progress.
    pub async fn rotate(&self, rotate: api::Rotate) -> Result<api::Rotation> {
        self.post(Call::Rotate, &rotate).await
    }

    /// The daemons that were expelled.
    pub async fn expelled(&self) -> Result<api::ExpelledList> {
        self.get(Call::Expelled, &[]).await
    }

    /// Expels a member.
    pub async fn expel(&self, member: &api::Expel) -> Result<api::Decision> {
        self.post(Call::Expel, member).await
    }

    /// Lets an expelled daemon return.
    pub async fn readmit(&self, member: &api::Expel) -> Result<api::Decision> {
        self.post(Call::Readmit, member).await
    }

    /// The lists of revoked certificates.
    pub async fn revocations(&self) -> Result<api::RevocationLists> {
        self.get(Call::Revocations, &[]).await
    }

    /// Puts a list of revoked certificates in force.
    pub async fn install_revocations(
        &self,
        list: &api::InstallRevocations,
    ) -> Result<api::InstalledRevocations> {
        self.post(Call::InstallRevocations, list).await
    }

    /// The metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String> {
        self.text(Call::Metrics).await
    }

    /// The latest lines of the daemon's log.
    pub async fn log(&self) -> Result<String> {
        self.text(Call::Log).await
    }

    /// The members of the cluster.
    pub async fn nodes(&self) -> Result<api::NodeList> {
        self.get(Call::Nodes, &[]).await
    }

    /// The links to other daemons.
    pub async fn peers(&self) -> Result<api::PeerList> {
        self.get(Call::Peers, &[]).await
    }

    /// Rejected connections.
    pub async fn refusals(&self) -> Result<api::RefusalList> {
        self.get(Call::Refusals, &[]).await
    }

    /// Whether another daemon can be reached.
    pub async fn reach(&self, reach: &api::Reach) -> Result<api::Reached> {
        self.post(Call::Reach, reach).await
    }

    /// Erlang nodes in the whole cluster, or on one of its hosts.
    pub async fn cluster_names(&self, host: Option<&str>) -> Result<api::ClusterNameList> {
        let mut query = vec![("scope", "cluster")];
        query.extend(host.map(|host| ("host", host)));
        self.get(Call::Names, &query).await
    }

    /// Services in the whole cluster.
    pub async fn cluster_services(&self) -> Result<api::ClusterServiceList> {
        self.get(Call::Services, &[("scope", "cluster")]).await
    }

    /// Aliases and tunnels, and the files for Erlang nodes.
    pub async fn tunnels(&self) -> Result<api::TunnelList> {
        self.get(Call::Tunnels, &[]).await
    }

    /// The same, once the files for Erlang nodes list every host, or after a short wait.
    pub async fn tunnels_for_a_node(&self) -> Result<api::TunnelList> {
        self.get(Call::Tunnels, &[("for", "node")]).await
    }

    /// Tests each hop to a node.
    pub async fn ping(&self, ping: &api::Ping) -> Result<api::Pinged> {
        self.post(Call::Ping, ping).await
    }

    /// The daemons that discovery has found.
    pub async fn discover(&self) -> Result<api::Discovered> {
        self.get(Call::Discover, &[]).await
    }

    async fn get<T: DeserializeOwned>(&self, call: Call, query: &[(&str, &str)]) -> Result<T> {
        parse(&self.http.ask(call, target(call, query), Bytes::new()).await?)
    }

    async fn post<T: DeserializeOwned>(&self, call: Call, body: &impl Serialize) -> Result<T> {
        parse(&self.http.ask(call, target(call, &[]), json(body)).await?)
    }

    async fn text(&self, call: Call) -> Result<String> {
        let text = String::from_utf8(self.http.ask(call, target(call, &[]), Bytes::new()).await?.into());
        text.map_err(|error| ClientError::Unexpected(error.to_string()))
    }
}
