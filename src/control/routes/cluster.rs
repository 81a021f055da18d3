//! The cluster: its members, links and registrations, and joining and leaving it.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_core::membership::Liveness;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Entry, NodeId};

use super::lookup::{several, unknown_host};
use super::request::{Answer, ApiError, RequestBody};
use super::warnings::{REISSUE, REISSUE_THERE};
use crate::cluster::evict::Eviction;
use crate::cluster::membership::{Cluster, JoinError};
use crate::cluster::view::ClusterView;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{About, MaybeMember, Member};
use crate::control::json::timestamp;
use crate::directory::Directory;
use crate::directory::local::Local;
use crate::link::dial::DialError;
use crate::link::handshake::HandshakeError;
use crate::link::inbox::Ended;

/// Default time limit of a join.
const JOIN: Duration = Duration::from_secs(10);
/// The longest time limit that a request may set.
const LONGEST_JOIN: Duration = Duration::from_secs(600);
/// How long to wait after the handshake until the members of the cluster are known here.
const SEEN: Duration = Duration::from_secs(2);
/// Addresses per request.
const MAX_JOIN: usize = 64;

/// The cluster membership, or the error for a daemon that has none.
pub(super) fn of(member: &MaybeMember) -> Result<&Arc<Member>, ApiError> {
    member.as_ref().ok_or_else(|| {
        ApiError::new(
            ErrorCode::NoCluster,
            "this daemon is not in a cluster: it was started as epmd",
            "restart it as pmd: pmd stop, then pmd start (nodes register again within seconds)",
        )
    })
}

impl From<Ended> for ApiError {
    fn from(ended: Ended) -> ApiError {
        ApiError::new(ErrorCode::Ending, ended.to_string(), "start it again: pmd start")
    }
}

/// The cluster section of `/v1/status`.
pub(super) fn status(cluster: &Cluster, local: &Local, view: &ClusterView) -> api::ClusterStatus {
    let own = cluster.local();
    let tls = own.tls();
    let expires = tls.checks_names().then(|| tls.expires()).flatten();
    let (mut names, mut services) = (local.names().count().0, local.count_services());
    for (_, origin) in cluster.directory().origins() {
        names += origin.count_names();
        services += origin.count_services();
    }
    api::ClusterStatus {
        name: own.cluster().to_owned(),
        id: own.id().to_string(),
        identity: if tls.checks_names() { api::IdentityMode::Ca } else { api::IdentityMode::Auto },
        addresses: view.identity.addresses.clone(),
        left: own.has_left(),
        members: view.members.len() + 1,
        suspects: view.suspects(),
        links: view.links.len(),
        agreeing: view.agreeing(),
        converged: !own.has_left() && view.is_converged(),
        fingerprint: view.fingerprint.to_string(),
        names,
        services,
        certificate_expires_at: expires.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
    }
}

pub(super) async fn nodes(
    State(about): State<Arc<About>>,
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
) -> Answer<api::NodeList> {
    let cluster = &of(&member)?.cluster;
    let view = cluster.core().view().await?;
    let local = directory.local();
    let own = api::Node {
        id: view.identity.id.to_string(),
        host: cluster.local().host().to_string(),
        oneself: true,
        state: api::NodeState::Alive,
        addresses: view.identity.addresses.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata: about.metadata.clone(),
        names: local.names().count().0,
        services: local.count_services(),
        started_at: timestamp(view.identity.generation.boot_ms),
    };
    let others = view.members.iter().map(|(identity, liveness)| {
        let origin = cluster.directory().origin(&identity.id).unwrap_or_default();
        api::Node {
            id: identity.id.to_string(),
            host: origin.host_name().to_owned(),
            oneself: false,
            state: match liveness {
                Liveness::Alive => api::NodeState::Alive,
                Liveness::Suspect => api::NodeState::Suspect,
            },
            addresses: identity.addresses.clone(),
            version: origin.host().map(|host| host.version.clone()).unwrap_or_default(),
            metadata: origin.host().map(|host| host.metadata.pairs().clone()).unwrap_or_default(),
            names: origin.count_names(),
            services: origin.count_services(),
            started_at: timestamp(identity.generation.boot_ms),
        }
    });
    let mut nodes: Vec<_> = std::iter::once(own).chain(others).collect();
    nodes.sort_by(|a, b| (!a.oneself, &a.host, &a.id).cmp(&(!b.oneself, &b.host, &b.id)));
    Ok(Json(api::NodeList { cluster: cluster.local().cluster().to_owned(), nodes }))
}

pub(super) async fn peers(State(member): State<MaybeMember>) -> Answer<api::PeerList> {
    let view = of(&member)?.cluster.core().view().await?;
    let peers = view.links.iter().map(|link| api::Peer {
        id: link.id.to_string(),
        host: link.host.to_string(),
        address: link.address,
        path: api::Path::Direct,
        dialled: link.initiated,
        up_seconds: link.age_ms / 1_000,
        rtt_us: link.rtt_us().map(u64::from),
        clock_ahead_ms: link.clock.ahead_ms(),
        phi: link.phi,
        heard_ms: link.silent_ms,
        received_bytes: link.traffic.received(),
        sent_bytes: link.traffic.sent(),
        agrees: link.agrees,
    });
    let mut peers: Vec<_> = peers.collect();
    peers.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
    Ok(Json(api::PeerList { peers }))
}

/// Erlang nodes in the whole cluster, or on one of its hosts.
pub(super) fn names(
    directory: &Directory,
    member: &Member,
    host: Option<&str>,
) -> Result<api::ClusterNameList, ApiError> {
    let found = directory.all(host).ok_or_else(|| unknown_host(host.unwrap_or_default()))?;
    let own = member.cluster.local().id();
    let names = found.into_iter().filter_map(|found| {
        let Entry::Name(name) = &*found.entry else { return None };
        Some(api::ClusterName {
            name: name.name.as_str().to_owned(),
            host: found.host,
            node_id: found.origin.unwrap_or(own).to_string(),
            port: name.port,
            creation: name.creation,
            registered_at: timestamp(name.registered_ms),
            node_type: name.node_type,
            highest_version: name.highest_version,
            lowest_version: name.lowest_version,
        })
    });
    let mut names: Vec<_> = names.collect();
    names.sort_by(|a, b| (&a.host, &a.name, &a.node_id).cmp(&(&b.host, &b.name, &b.node_id)));
    Ok(api::ClusterNameList { names })
}

/// Services in the whole cluster.
pub(super) fn services(directory: &Directory, member: &Member) -> api::ClusterServiceList {
    let own = member.cluster.local().id();
    let services = directory.all(None).unwrap_or_default().into_iter().filter_map(|found| {
        let Entry::Service(service) = &*found.entry else { return None };
        Some(api::ClusterService {
            name: service.name.as_str().to_owned(),
            host: found.host,
            node_id: found.origin.unwrap_or(own).to_string(),
            port: service.port,
            metadata: service.metadata.pairs().clone(),
            registered_at: timestamp(service.registered_ms),
        })
    });
    let mut services: Vec<_> = services.collect();
    services.sort_by(|a, b| (&a.name, &a.host, &a.node_id).cmp(&(&b.name, &b.host, &b.node_id)));
    api::ClusterServiceList { services }
}

pub(super) async fn join(
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Joined> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Join = body.parse()?;
    if asked.addresses.is_empty() || asked.addresses.len() > MAX_JOIN {
        let message = format!("a join takes 1 to {MAX_JOIN} addresses");
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            message,
            "give the address of a daemon in the cluster",
        ));
    }
    let limit = asked.timeout_ms.map_or(JOIN, Duration::from_millis).min(LONGEST_JOIN);
    let attempts = asked.addresses.iter().map(async |address| {
        let joined = tokio::time::timeout(limit, cluster.join(address)).await;
        (address.clone(), joined.unwrap_or(Err(JoinError::Timeout)))
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
    let members = wait_until_seen(cluster, &ids).await?;
    Ok(Json(api::Joined {
        cluster: cluster.local().cluster().to_owned(),
        peers: peers.into_iter().map(|(_, peer)| peer).collect(),
        failed: failed
            .into_iter()
            .map(|(asked, error)| api::JoinFailure { asked, error: error.into_info() })
            .collect(),
        members,
    }))
}

/// Waits until this daemon knows at least as many members as each daemon it joined; returns their number.
async fn wait_until_seen(cluster: &Cluster, ids: &[NodeId]) -> Result<usize, Ended> {
    let (mut members, mut summaries) = (cluster.watch_members(), cluster.watch_summaries());
    let seen = async {
        loop {
            let view = cluster.core().view().await?;
            let own = view.members.len() + 1;
            let is_seen = |id: &NodeId| {
                view.member(id).is_some()
                    && view.links_to(*id).any(|link| link.peer_members.is_some_and(|theirs| own >= theirs))
            };
            if ids.iter().all(is_seen) {
                return Ok(own);
            }
            let changed = tokio::select! {
                changed = members.changed() => changed,
                changed = summaries.changed() => changed,
            };
            changed.map_err(|_| Ended)?;
        }
    };
    match tokio::time::timeout(SEEN, seen).await {
        Ok(seen) => seen,
        Err(_) => Ok(cluster.core().view().await?.members.len() + 1),
    }
}

pub(super) fn join_error(asked: &str, error: &JoinError) -> ApiError {
    let port = "the port (4369) and any firewall in between";
    if error.is_this_daemon() {
        return ApiError::new(
            ErrorCode::Oneself,
            format!("{asked} is this daemon itself"),
            "name another host of the cluster",
        );
    }
    match error {
        JoinError::Malformed(_) => {
            ApiError::new(ErrorCode::InvalidRequest, error.to_string(), "use HOST or HOST:PORT")
        }
        JoinError::Unresolvable { .. } => ApiError::new(
            ErrorCode::Unresolvable,
            error.to_string(),
            "check the name, or give the host's address",
        ),
        JoinError::Timeout => ApiError::new(
            ErrorCode::Timeout,
            format!("{asked} did not answer in time"),
            format!("check the address, {port}"),
        ),
        JoinError::Left => ApiError::new(ErrorCode::Conflict, error.to_string(), "join again: pmd join"),
        JoinError::Full => ApiError::new(
            ErrorCode::Full,
            error.to_string(),
            "raise the descriptor limit (ulimit -Hn) and restart the daemon",
        ),
        JoinError::Ended(ended) => ApiError::from(*ended),
        JoinError::Dial(DialError::NoAddress) => ApiError::new(
            ErrorCode::Unresolvable,
            format!("{asked} has no address"),
            "give the host's address",
        ),
        JoinError::Dial(DialError::Connect { address, source }) => {
            let code = match source.kind() {
                std::io::ErrorKind::TimedOut => ErrorCode::Timeout,
                _ => ErrorCode::Unreachable,
            };
            let message = format!("cannot connect to {address}: {source}");
            ApiError::new(code, message, format!("start pmd there, or check {port}"))
        }
        JoinError::Dial(DialError::Handshake { address, source }) => {
            handshake_error(&address.to_string(), source)
        }
    }
}

fn handshake_error(at: &str, error: &HandshakeError) -> ApiError {
    let rejected = |message: String, hint: &str| ApiError::new(ErrorCode::Refused, message, hint);
    let cookie = "copy the cluster secret from a host of the cluster (pmd cookie path), then run pmd reload";
    match error {
        HandshakeError::Timeout => ApiError::new(
            ErrorCode::Timeout,
            format!("{at} did not complete the handshake in time"),
            "check whether that host is overloaded, and try again",
        ),
        HandshakeError::Io(_) | HandshakeError::Closed => ApiError::new(
            ErrorCode::Unreachable,
            format!("handshake with {at} failed: {error}"),
            "check that pmd is running there and not a stock epmd (pmd takeover replaces it)",
        ),
        HandshakeError::Refused { reason: Reason::Cookie, .. } => {
            rejected(format!("{at} rejected this daemon: {error}"), cookie)
        }
        HandshakeError::Cookie => rejected(format!("this daemon rejected {at}: {error}"), cookie),
        HandshakeError::Refused { reason: Reason::Expelled, .. } => rejected(
            format!("{at} rejected this daemon: {error}"),
            "run pmd readmit with that id on a host of the cluster, then join again",
        ),
        HandshakeError::Refused { reason: Reason::Revoked, .. } => {
            rejected(format!("{at} rejected this daemon: {error}"), REISSUE)
        }
        HandshakeError::Revoked { .. } => {
            rejected(format!("this daemon rejected {at}: {error}"), REISSUE_THERE)
        }
        HandshakeError::Expelled { id, .. } => rejected(
            format!("this daemon rejected {at}: {error}"),
            &format!("to let it return: pmd readmit {id:.8}"),
        ),
        // An older version does not understand the first frame.
        HandshakeError::Refused { reason: Reason::Violation, .. } => rejected(
            format!("{at} rejected this daemon: {error}"),
            "update pmd on the host with the older version (pmd version)",
        ),
        HandshakeError::Refused { .. } => rejected(
            format!("{at} rejected this daemon: {error}"),
            "compare the cluster name and the version that pmd status shows on both hosts",
        ),
        HandshakeError::Cluster(theirs) => rejected(
            format!("{at} belongs to cluster {theirs}"),
            "set the same cluster name in both configuration files",
        ),
        HandshakeError::Protocol(_) => rejected(
            format!("this daemon rejected {at}: {error}"),
            "update pmd on the host with the older version",
        ),
        HandshakeError::Tls(_) | HandshakeError::Id | HandshakeError::Name(_) => rejected(
            format!("handshake with {at} failed: {error}"),
            "check that both hosts have certificates of the same authority: pmd ca show",
        ),
        HandshakeError::Twin => rejected(
            format!("{at} has the same key as this daemon: one was copied from the other"),
            "remove the key file (node-PORT.key) on one of the two hosts and restart its daemon",
        ),
        _ => rejected(format!("handshake with {at} failed: {error}"), "check the logs of both daemons"),
    }
}

pub(super) async fn discover(State(member): State<MaybeMember>) -> Answer<api::Discovered> {
    let found = of(&member)?.cluster.joiner().list().await;
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
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::LeftCluster> {
    let cluster = &of(&member)?.cluster;
    let asked: api::Leave = body.parse()?;
    let members = match &asked.peer {
        None => cluster.leave().await?,
        Some(peer) => {
            evict(cluster, peer).await?;
            1
        }
    };
    Ok(Json(api::LeftCluster { cluster: cluster.local().cluster().to_owned(), members }))
}

/// Tells the member that `peer` names to leave.
async fn evict(cluster: &Cluster, peer: &str) -> Result<(), ApiError> {
    let (code, message, hint) = match cluster.evict(peer).await? {
        Eviction::Left => return Ok(()),
        Eviction::Several(ids) => return Err(several(peer, &ids)),
        Eviction::Unknown => (
            ErrorCode::NotFound,
            format!("no member has the id, name or address {peer:?}"),
            "pmd nodes lists the members",
        ),
        Eviction::ThisDaemon => (
            ErrorCode::Oneself,
            format!("{peer} is this daemon itself"),
            "to make this daemon leave, run pmd leave without an address",
        ),
        Eviction::Stayed => (
            ErrorCode::Timeout,
            format!("{peer} was told to leave but is still a member"),
            "check its link (pmd peers) and its version (pmd nodes); a member that is down is removed automatically",
        ),
    };
    Err(ApiError::new(code, message, hint))
}
