//! The cluster: who is in it, what is registered there, and coming and going.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_core::gossip::link::Link;
use pmd_core::membership::{Identity, Liveness};
use pmd_core::node::Node;
use pmd_core::replica::view::Found;
use pmd_protocol::peer::frame::{Reason, Summary};
use pmd_protocol::peer::{Entry, Host, Kind, NodeId};

use super::request::{ApiError, RequestBody};
use super::{Answer, Shared};
use crate::control::api::{self, ErrorCode};
use crate::control::wire::timestamp;
use crate::daemon::Context;
use crate::daemon::cluster::{Cluster, JoinError};
use crate::daemon::core_task::{Ended, Running};
use crate::daemon::departure::Departure;
use crate::directory::same_host;
use crate::link::dial::DialError;
use crate::link::greeting::GreetingError;
use crate::registry::services::Metadata;

/// How long joining may take unless the request says something else.
const JOIN: Duration = Duration::from_secs(10);
/// The longest that a request may ask for.
const LONGEST_JOIN: Duration = Duration::from_secs(600);
/// How long a new member may take to be seen, after both have proven who they are.
const SEEN: Duration = Duration::from_secs(2);
/// Addresses in one request.
const MAX_JOIN: usize = 64;

/// The daemon's part in a cluster, or why there is none.
pub(super) fn of(context: &Context) -> Result<&Arc<Cluster>, ApiError> {
    context.cluster.get().ok_or_else(|| {
        ApiError::new(
            ErrorCode::NoCluster,
            "this daemon takes no part in a cluster: it was started by the name epmd",
            "start it as pmd: pmd stop, then pmd start (nodes come back by themselves within seconds)",
        )
    })
}

impl From<Ended> for ApiError {
    fn from(ended: Ended) -> ApiError {
        ApiError::new(ErrorCode::Ending, ended.to_string(), "start it again: pmd start")
    }
}

/// The part of `/v1/status` about the cluster. With `ask` the peers are asked what they have, for who looks next: what they
/// said last may be seconds old.
pub(super) async fn status(cluster: &Arc<Cluster>, ask: bool) -> Result<api::ClusterStatus, Ended> {
    let me = Arc::clone(cluster.me());
    let tls = me.tls();
    let expires = tls.checks_names().then(|| tls.expires()).flatten();
    let expires = expires.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    cluster
        .core()
        .visit(move |running| {
            if ask {
                running.ask_tallies();
            }
            let node = running.node();
            let fingerprint = node.registry().fingerprint();
            let summary = node.registry().summary();
            let agreeing = node.links().filter(|(_, link)| agrees(link, &summary)).count();
            let links = node.links().count();
            let states: Vec<Liveness> = node.members().map(|(_, liveness)| liveness).collect();
            let count = |kind: Kind| entries(node).filter(|(_, entry)| entry.kind() == kind).count();
            api::ClusterStatus {
                name: me.cluster().to_owned(),
                id: me.id().to_string(),
                identity: if tls.checks_names() { api::IdentityMode::Ca } else { api::IdentityMode::Auto },
                addresses: node.identity().addresses.clone(),
                left: me.has_left(),
                members: states.len() + 1,
                suspects: states.iter().filter(|state| **state == Liveness::Suspect).count(),
                links,
                agreeing,
                converged: !me.has_left() && agreeing == links && (links > 0 || states.is_empty()),
                fingerprint: fingerprint.to_string(),
                names: count(Kind::NAME),
                services: count(Kind::SERVICE),
                certificate_expires_at: expires,
            }
        })
        .await
}

/// What is wrong with the cluster, in sentences.
pub(super) async fn warnings(cluster: &Arc<Cluster>) -> Vec<String> {
    use pmd_core::node::Alarm;
    let alarms = cluster.core().visit(|running| running.alarms().to_vec()).await.unwrap_or_default();
    let mut warnings: Vec<String> = Vec::new();
    for (_, alarm) in alarms {
        let warning = match alarm {
            Alarm::Forked(id) => format!(
                "two daemons write under the identity {id:.8}: remove the key file of one of them and restart it"
            ),
            Alarm::IdentityTaken => {
                "another daemon has this one's key: remove the key file of one of them and restart \
                                     it"
                .to_owned()
            }
            Alarm::Violation(id) => format!("the daemon {id:.8} has broken the protocol: see the log"),
        };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

pub(super) async fn nodes(State(context): Shared) -> Answer<api::NodeList> {
    let cluster = of(&context)?;
    let mut nodes = cluster.core().visit(|running| members(running)).await?;
    nodes.sort_by(|a, b| (!a.oneself, &a.host, &a.id).cmp(&(!b.oneself, &b.host, &b.id)));
    Ok(Json(api::NodeList { cluster: cluster.me().cluster().to_owned(), nodes }))
}

fn members(running: &Running) -> Vec<api::Node> {
    let node = running.node();
    let own = std::iter::once((node.identity(), Liveness::Alive, true));
    let all = own.chain(node.members().map(|(identity, liveness)| (identity, liveness, false)));
    all.map(|(identity, liveness, oneself)| member(node, identity, liveness, oneself)).collect()
}

fn member(node: &Node, identity: &Identity, liveness: Liveness, oneself: bool) -> api::Node {
    let mut host: Option<&Host> = None;
    let (mut names, mut services) = (0, 0);
    for entry in node.registry().directory().of(&identity.id) {
        match &**entry {
            Entry::Host(entry) => host = Some(entry),
            Entry::Name(_) => names += 1,
            Entry::Service(_) => services += 1,
        }
    }
    api::Node {
        id: identity.id.to_string(),
        host: host.map(|host| host.host.to_string()).unwrap_or_default(),
        oneself,
        state: match liveness {
            Liveness::Alive => api::NodeState::Alive,
            Liveness::Suspect => api::NodeState::Suspect,
        },
        addresses: identity.addresses.clone(),
        version: host.map(|host| host.version.clone()).unwrap_or_default(),
        metadata: host.map(|host| host.metadata.pairs().clone()).unwrap_or_default(),
        names,
        services,
        started_at: timestamp(identity.generation.boot_ms),
    }
}

pub(super) async fn peers(State(context): Shared) -> Answer<api::PeerList> {
    let mut peers = of(&context)?.core().visit(|running| links(running)).await?;
    peers.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
    Ok(Json(api::PeerList { peers }))
}

fn links(running: &Running) -> Vec<api::Peer> {
    let node = running.node();
    let now_ms = running.now().mono_ms;
    let summary = node.registry().summary();
    let both = node.links().filter_map(|(id, link)| Some((link, running.link(id)?)));
    both.map(|(link, end)| api::Peer {
        id: link.peer.id.to_string(),
        host: end.host.to_string(),
        address: end.address,
        path: api::Path::Direct,
        dialled: end.initiated,
        up_seconds: now_ms.saturating_sub(link.since_ms) / 1_000,
        // The kernel measures more finely than heartbeats do.
        rtt_us: end.traffic.rtt_us().or(link.rtt_us).map(u64::from),
        clock_ahead_ms: end.clock.ahead_ms(),
        phi: link.phi.phi(now_ms),
        heard_ms: now_ms.saturating_sub(link.phi.last_ms()),
        received_bytes: end.traffic.received(),
        sent_bytes: end.traffic.sent(),
        agrees: agrees(link, &summary),
    })
    .collect()
}

/// Whether a peer said last that it has this.
fn agrees(link: &Link, own: &Summary) -> bool {
    link.summary().is_some_and(|summary| summary.fingerprint == own.fingerprint)
}

/// All entries of live daemons, with whose they are.
fn entries(node: &Node) -> impl Iterator<Item = (NodeId, &Arc<Entry>)> {
    let own = std::iter::once(node.identity());
    let all = own.chain(node.members().map(|(identity, _)| identity));
    all.flat_map(|identity| node.registry().directory().of(&identity.id).map(|entry| (identity.id, entry)))
}

fn host_of(node: &Node, id: &NodeId) -> String {
    node.registry().directory().host(id).map(ToString::to_string).unwrap_or_default()
}

/// Erlang nodes in the whole cluster, or on one of its hosts.
pub(super) async fn names(cluster: &Cluster, host: Option<String>) -> Result<api::ClusterNameList, ApiError> {
    let list = cluster.core().visit(move |running| {
        let node = running.node();
        let mut known = host.is_none();
        let mut names = Vec::new();
        for (id, entry) in entries(node) {
            let at = host_of(node, &id);
            if host.as_ref().is_some_and(|host| !same_host(host, &at)) {
                continue;
            }
            known = true;
            if let Entry::Name(name) = &**entry {
                names.push(api::ClusterName {
                    name: name.name.as_str().to_owned(),
                    host: at,
                    node_id: id.to_string(),
                    port: name.port,
                    creation: name.creation,
                    registered_at: timestamp(name.registered_ms),
                    node_type: name.node_type,
                    highest_version: name.highest_version,
                    lowest_version: name.lowest_version,
                });
            }
        }
        names.sort_by(|a, b| (&a.host, &a.name, &a.node_id).cmp(&(&b.host, &b.name, &b.node_id)));
        known.then_some(api::ClusterNameList { names }).ok_or(host)
    });
    list.await?.map_err(|host| {
        ApiError::new(
            ErrorCode::NotFound,
            format!("no host of the cluster is called {:?}", host.unwrap_or_default()),
            "pmd nodes lists the hosts",
        )
    })
}

/// Services in the whole cluster.
pub(super) async fn services(cluster: &Cluster) -> Result<api::ClusterServiceList, Ended> {
    cluster
        .core()
        .visit(|running| {
            let node = running.node();
            let mut services: Vec<api::ClusterService> = entries(node)
                .filter_map(|(id, entry)| match &**entry {
                    Entry::Service(service) => Some(api::ClusterService {
                        name: service.name.as_str().to_owned(),
                        host: host_of(node, &id),
                        node_id: id.to_string(),
                        port: service.port,
                        metadata: service.metadata.pairs().clone(),
                        registered_at: timestamp(service.registered_ms),
                    }),
                    Entry::Host(_) | Entry::Name(_) => None,
                })
                .collect();
            services.sort_by(|a, b| (&a.name, &a.host, &a.node_id).cmp(&(&b.name, &b.host, &b.node_id)));
            api::ClusterServiceList { services }
        })
        .await
}

/// Everything that goes by a name, on all hosts or on one, the best first. And whether there is such a host.
pub(super) async fn look_up(
    cluster: &Cluster,
    name: String,
    host: Option<String>,
) -> Result<(Vec<api::Match>, bool), Ended> {
    cluster
        .core()
        .visit(move |running| {
            let node = running.node();
            let directory = node.registry().directory();
            let known = host.as_ref().is_none_or(|host| {
                let own = std::iter::once(node.identity());
                let all = own.chain(node.members().map(|(identity, _)| identity));
                all.into_iter().any(|identity| same_host(host, &host_of(node, &identity.id)))
            });
            let found = [Kind::NAME, Kind::SERVICE].map(|kind| directory.look_up(kind, name.as_bytes()));
            let matches = found.into_iter().flatten().filter_map(found_on_the_wire);
            let at = |found: &api::Match| host.as_ref().is_none_or(|host| same_host(host, &found.host));
            (matches.filter(at).collect(), known)
        })
        .await
}

fn found_on_the_wire(found: Found) -> Option<api::Match> {
    let (kind, metadata) = match &*found.entry {
        Entry::Name(_) => (api::Kind::Name, Metadata::new()),
        Entry::Service(service) => (api::Kind::Service, service.metadata.pairs().clone()),
        Entry::Host(_) => return None,
    };
    Some(api::Match {
        kind,
        name: found.entry.name().to_owned(),
        host: found.host.map(|host| host.to_string()).unwrap_or_default(),
        node_id: Some(found.origin.to_string()),
        port: found.entry.port()?,
        entry: None,
        metadata,
    })
}

pub(super) async fn join(
    State(context): Shared,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Joined> {
    let cluster = of(&context)?;
    let asked: api::Join = body.parse()?;
    if asked.addresses.is_empty() || asked.addresses.len() > MAX_JOIN {
        let message = format!("from 1 to {MAX_JOIN} addresses can be joined at once");
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            message,
            "name the host of a daemon in the cluster",
        ));
    }
    let patience = asked.timeout_ms.map_or(JOIN, Duration::from_millis).min(LONGEST_JOIN);
    let attempts = asked.addresses.iter().map(async |address| {
        let joined = tokio::time::timeout(patience, cluster.join(address)).await;
        (address.clone(), joined.unwrap_or(Err(JoinError::Late)))
    });
    let (mut peers, mut failed) = (Vec::new(), Vec::new());
    for (asked, outcome) in futures_util::future::join_all(attempts).await {
        match &outcome {
            Ok(partner) => tracing::info!(address = %partner.address, host = %partner.host, "joined"),
            Err(error) => tracing::warn!(address = asked, "cannot join: {error}"),
        }
        match outcome {
            Ok(partner) => peers.push((
                partner.id,
                api::JoinedPeer {
                    asked,
                    address: partner.address,
                    id: partner.id.to_string(),
                    host: partner.host.to_string(),
                },
            )),
            Err(error) => failed.push((asked.clone(), join_error(&asked, &error))),
        }
    }
    if peers.is_empty() {
        let first = failed.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or_else(|| ApiError::from(Ended)));
    }
    let ids: Vec<NodeId> = peers.iter().map(|(id, _)| *id).collect();
    let members = wait_until_seen(cluster, ids).await?;
    Ok(Json(api::Joined {
        cluster: cluster.me().cluster().to_owned(),
        peers: peers.into_iter().map(|(_, peer)| peer).collect(),
        failed: failed
            .into_iter()
            .map(|(asked, error)| api::JoinFailure { asked, error: error.into_info() })
            .collect(),
        members,
    }))
}

/// Waits until those who were joined are members here; how many members there are then.
async fn wait_until_seen(cluster: &Cluster, ids: Vec<NodeId>) -> Result<usize, Ended> {
    let deadline = tokio::time::Instant::now() + SEEN;
    loop {
        let wanted = ids.clone();
        let visit = cluster.core().visit(move |running| {
            let members: Vec<NodeId> = running.node().members().map(|(identity, _)| identity.id).collect();
            (members.len() + 1, wanted.iter().all(|id| members.contains(id)))
        });
        let (members, seen) = visit.await?;
        if seen || tokio::time::Instant::now() >= deadline {
            return Ok(members);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn join_error(asked: &str, error: &JoinError) -> ApiError {
    let port = "the port that pmd listens on there (4369) and firewalls in between";
    if error.is_oneself() {
        return ApiError::new(
            ErrorCode::Oneself,
            format!("{asked} is this daemon itself"),
            "name another host of the cluster",
        );
    }
    match error {
        JoinError::Malformed(_) => {
            ApiError::new(ErrorCode::InvalidRequest, error.to_string(), "give it as HOST or HOST:PORT")
        }
        JoinError::Unresolvable { .. } => ApiError::new(
            ErrorCode::Unresolvable,
            error.to_string(),
            "correct the name, or give the address of the host",
        ),
        JoinError::Late => ApiError::new(
            ErrorCode::Timeout,
            format!("{asked} has not answered in time"),
            format!("check the address, {port}"),
        ),
        JoinError::Full => ApiError::new(
            ErrorCode::Full,
            error.to_string(),
            "raise the limit of open descriptors (ulimit -Hn) and restart the daemon",
        ),
        JoinError::Ended(ended) => ApiError::from(*ended),
        JoinError::Dial(DialError::NoAddress) => ApiError::new(
            ErrorCode::Unresolvable,
            format!("{asked} has no address"),
            "give the address of the host",
        ),
        JoinError::Dial(DialError::Connect { address, source }) => {
            let code = match source.kind() {
                std::io::ErrorKind::TimedOut => ErrorCode::Timeout,
                _ => ErrorCode::Unreachable,
            };
            let message = format!("nobody answers at {address}: {source}");
            ApiError::new(code, message, format!("see that pmd runs there, and check {port}"))
        }
        JoinError::Dial(DialError::Greeting { address, source }) => {
            greeting_error(&address.to_string(), source)
        }
    }
}

fn greeting_error(at: &str, error: &GreetingError) -> ApiError {
    let refused = |message: String, hint: &str| ApiError::new(ErrorCode::Refused, message, hint);
    let cookie = "copy the cookie file from a host of the cluster (pmd cookie path), then pmd reload";
    match error {
        GreetingError::Late => ApiError::new(
            ErrorCode::Timeout,
            format!("the daemon at {at} has not completed the handshake in time"),
            "see whether that host is overloaded, and try again",
        ),
        GreetingError::Io(_) | GreetingError::Closed => ApiError::new(
            ErrorCode::Unreachable,
            format!("whoever listens at {at} is no pmd, or closes the connection: {error}"),
            "see that pmd runs there and not epmd (pmd takeover replaces it)",
        ),
        GreetingError::Refused { reason: Reason::Refused, text } if text.contains("cookie") => {
            refused(format!("the daemon at {at} has refused this one: {text}"), cookie)
        }
        GreetingError::Cookie => refused(format!("the daemon at {at} has another cookie"), cookie),
        GreetingError::Refused { text, .. } => refused(
            format!("the daemon at {at} has refused this one: {text}"),
            "pmd status shows the name of the cluster and the version on both hosts",
        ),
        GreetingError::Cluster(theirs) => refused(
            format!("the daemon at {at} belongs to the cluster {theirs:?}"),
            "set the same cluster in both configuration files",
        ),
        GreetingError::Protocol(_) => {
            refused(format!("the daemon at {at}: {error}"), "update the older of the two")
        }
        GreetingError::Tls(_) | GreetingError::Id | GreetingError::Name(_) => refused(
            format!("the daemon at {at} is not accepted: {error}"),
            "see that both hosts have certificates of the same authority: pmd ca show",
        ),
        GreetingError::Twin => refused(
            format!("the daemon at {at} has the same key as this one: one was copied from the other"),
            "remove the key file of one of the two (node-PORT.key) and restart it",
        ),
        _ => refused(format!("the daemon at {at} is not accepted: {error}"), "see the logs of both daemons"),
    }
}

pub(super) async fn discover(State(context): Shared) -> Answer<api::Discovered> {
    let found = of(&context)?.seeker().list().await;
    let found = found.into_iter().map(|listed| api::Found {
        source: listed.source.to_owned(),
        address: listed.address,
        cluster: listed.cluster,
        other_cookie: listed.other_cookie,
        heard_ms: listed.heard_ms,
        member: listed.member,
    });
    Ok(Json(api::Discovered { found: found.collect() }))
}

pub(super) async fn leave(
    State(context): Shared,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::LeftCluster> {
    let cluster = of(&context)?;
    let asked: api::Leave = body.parse()?;
    let members = match &asked.peer {
        None => cluster.leave().await?,
        Some(peer) => dismiss(cluster, peer).await?,
    };
    Ok(Json(api::LeftCluster { cluster: cluster.me().cluster().to_owned(), members }))
}

/// Tells the members that go by `peer` to leave; how many they were.
async fn dismiss(cluster: &Cluster, peer: &str) -> Result<usize, ApiError> {
    let (code, message, hint) = match cluster.dismiss(peer).await? {
        Departure::Left(told) => return Ok(told),
        Departure::Unknown => {
            (ErrorCode::NotFound, format!("no member goes by {peer:?}"), "pmd nodes lists the members")
        }
        Departure::Oneself => (
            ErrorCode::Oneself,
            format!("{peer} is this daemon itself"),
            "to leave with this one, give no address: pmd leave",
        ),
        Departure::Stay => (
            ErrorCode::Timeout,
            format!("{peer} was told to leave and is still a member"),
            "see whether it answers (pmd peers) and is of this version (pmd nodes); one that is gone drops out by itself",
        ),
    };
    Err(ApiError::new(code, message, hint))
}
