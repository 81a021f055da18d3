//! Aliases and tunnels, and the test of each hop to a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Entry, Kind};
use tokio::net::TcpStream;

use super::cluster;
use super::lookup::{find, unknown_host};
use super::request::{Answer, ApiError, Asked, Parameters, RequestBody};
use crate::base::permit::Permit;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{About, MaybeMember, Measured, Member};
use crate::directory::hosts::same_host;
use crate::directory::{Directory, Target};
use crate::tunnel::connect;
use crate::tunnel::connect::OpenError;
use crate::tunnel::probe::probe;
use crate::tunnel::table::Side;

/// How long a node waits for a daemon that has just started to join the daemons it knows of.
const FIRST_JOIN: Duration = Duration::from_secs(2);
/// How long a node may take to answer the distribution probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The node name that the probe uses. It conflicts only with a real node of this name.
const OWN_NAME: &str = "pmd-ping";

/// The tunnel section of `/v1/status`.
pub(super) fn status(member: &Member) -> api::TunnelStatus {
    let tunnels = &member.tunnels;
    api::TunnelStatus {
        open: tunnels.table().all().len(),
        limit: tunnels.table().limit(),
        bytes: tunnels.table().bytes(),
        entries: member.entrances.count(),
        aliases: tunnels.aliases().len(),
    }
}

fn for_a_node(query: Asked) -> Result<bool, ApiError> {
    match Parameters::of(query, &["for"])?.get("for") {
        None => Ok(false),
        Some("node") => Ok(true),
        Some(other) => {
            let message = format!("unknown purpose {other:?}");
            Err(ApiError::new(ErrorCode::InvalidRequest, message, "the only purpose is: for=node"))
        }
    }
}

pub(super) async fn list(
    State(about): State<Arc<About>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Answer<api::TunnelList> {
    let member = cluster::of(&member)?;
    let tunnels = &member.tunnels;
    if for_a_node(query)? {
        let is_new = about.started.elapsed() < FIRST_JOIN;
        let has_candidates = is_new && !member.cluster.joiner().list().await.is_empty();
        // Hosts that join later are found too: nodes reread the file every few seconds.
        let _ = tokio::time::timeout(FIRST_JOIN, tunnels.until_shown(has_candidates)).await;
    }
    let settings = tunnels.settings();
    let mut aliases: Vec<_> = tunnels
        .aliases()
        .into_iter()
        .map(|(address, alias)| api::AliasInfo {
            host: alias.host,
            address,
            listed: alias.listed,
            plain: alias.plain,
        })
        .collect();
    aliases.sort_by(|a, b| a.host.cmp(&b.host));
    let open = tunnels.table().all().into_iter().map(|tunnel| {
        let (side, kind, name) = match &tunnel.side {
            Side::Entry(target, _) => (api::TunnelSide::Entry, target.kind == Kind::SERVICE, &target.name),
            Side::Exit { name, service, .. } => (api::TunnelSide::Exit, *service, name),
        };
        api::TunnelInfo {
            side,
            kind: if kind { api::Kind::Service } else { api::Kind::Name },
            name: name.to_string(),
            host: tunnel.host.clone(),
            path: tunnel.path.to_owned(),
            bytes: tunnel.bytes.get(),
        }
    });
    let mut open: Vec<_> = open.collect();
    open.sort_by(|a, b| (&a.host, &a.name).cmp(&(&b.host, &b.name)));
    Ok(Json(api::TunnelList {
        inetrc: settings.inetrc.clone(),
        hosts_file: settings.hosts_file.clone(),
        module_folder: settings.module.parent().unwrap_or(&settings.module).to_owned(),
        port: about.listen_port,
        aliases,
        tunnels: open,
    }))
}

pub(super) async fn ping(
    State(directory): State<Arc<Directory>>,
    State(measured): State<Measured>,
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Pinged> {
    let member = cluster::of(&member)?;
    let asked: api::Ping = body.parse()?;
    let own = directory.local().host();
    let (name, host) = asked.node.rsplit_once('@').unwrap_or((&asked.node, own));
    let begin = Instant::now();
    if same_host(host, own)
        && let Some(entry) = directory.local().names().get(name)
    {
        return ping_here(own, &entry.name, entry.port, begin).await.map(Json);
    }
    let permit = Permit::take(&measured.descriptors).ok_or_else(|| {
        ApiError::new(ErrorCode::Full, "no free descriptor", "raise the descriptor limit (ulimit -Hn)")
    })?;
    let pinged = ping_there(&directory, member, &asked.node, (name, host), begin).await;
    drop(permit);
    pinged.map(Json)
}

async fn ping_here(host: &str, name: &str, port: u16, begin: Instant) -> Result<api::Pinged, ApiError> {
    let mut hops = Hops::new(begin);
    hops.add("lookup", format!("{name} is registered here with port {port}"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await.map_err(|error| {
        let message = format!("{name} is registered but does not accept connections on {address}: {error}");
        ApiError::new(ErrorCode::Silent, message, "check whether the node hangs or is suspended")
    })?;
    hops.add("exit", format!("the node accepts connections on {address}"));
    let node = probed(probe(&mut stream, &own_name(host)), name).await?;
    hops.add("greeting", format!("{node} responds as an Erlang node"));
    Ok(hops.done(node, host.to_owned(), port, "local", None))
}

async fn ping_there(
    directory: &Directory,
    member: &Member,
    asked: &str,
    (name, host): (&str, &str),
    begin: Instant,
) -> Result<api::Pinged, ApiError> {
    let mut hops = Hops::new(begin);
    let found = find(directory, Some(member), name, Some(host)).await?.ok_or_else(|| unknown_host(host))?;
    let node = found.into_iter().find_map(|found| match &*found.entry {
        Entry::Name(node) => Some((found.origin?, found.host, node.port)),
        _ => None,
    });
    let Some((origin, found_host, port)) = node else {
        let message = format!("no node named {name:?} is registered on {host}");
        return Err(ApiError::new(
            ErrorCode::NotFound,
            message,
            "pmd names --cluster lists the registered nodes",
        ));
    };
    hops.add("lookup", format!("{name} is registered on {found_host} with port {port}"));
    let wanted = found_host.to_lowercase().into();
    let target = Target { origin, host: wanted, kind: Kind::NAME, name: name.into(), pinned: None };
    let tunnel = Box::pin(connect::open(&member.tunnels, &target, 0)).await;
    let tunnel = tunnel.map_err(|error| open_error(asked, &error))?;
    let mut stream = tunnel.stream;
    hops.put(
        "daemon",
        format!("{}: completed the handshake via {}", tunnel.path, tunnel.address),
        tunnel.handshake,
    );
    hops.put(
        "exit",
        format!("its rules allow this host, and the node accepts connections on port {}", tunnel.opened.port),
        tunnel.answered,
    );
    hops.mark();
    let own = own_name(member.cluster.local().host().as_str());
    let node = probed(probe(&mut stream, &own), name).await?;
    hops.add("greeting", format!("{node} responds as an Erlang node"));
    Ok(hops.done(node, found_host, tunnel.opened.port, tunnel.path, Some(tunnel.address)))
}

fn own_name(host: &str) -> String {
    // Always the same, because the probed node keeps every new name as an atom.
    format!("{OWN_NAME}@{host}")
}

async fn probed(
    probe: impl Future<Output = std::io::Result<Option<String>>>,
    name: &str,
) -> Result<String, ApiError> {
    let hint = "check whether the node hangs or is suspended; a node with TLS distribution cannot be probed";
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(Ok(node)) => Ok(node.unwrap_or_else(|| name.to_owned())),
        Ok(Err(error)) => {
            let message =
                format!("{name} accepts connections but does not respond as an Erlang node: {error}");
            Err(ApiError::new(ErrorCode::Silent, message, hint))
        }
        Err(_) => {
            let message = format!(
                "{name} accepts connections but did not respond within {} s",
                PROBE_TIMEOUT.as_secs()
            );
            Err(ApiError::new(ErrorCode::Timeout, message, hint))
        }
    }
}

fn open_error(asked: &str, error: &OpenError) -> ApiError {
    let message = format!("cannot reach {asked}: {error}");
    match error {
        OpenError::Refused { reason: Reason::Busy, .. } => ApiError::new(
            ErrorCode::Full,
            message,
            "try again; pmd status on both hosts shows the number of open tunnels",
        ),
        OpenError::Refused { reason: Reason::Silent, .. } => ApiError::new(
            ErrorCode::Silent,
            message,
            "check on that host whether the node hangs or is suspended",
        ),
        OpenError::WrongHost(_) => ApiError::new(
            ErrorCode::Refused,
            message,
            "find out which daemon uses that host name without owning it: pmd nodes shows the ids",
        ),
        OpenError::Refused { .. } => ApiError::new(
            ErrorCode::Refused,
            message,
            "check the [[allow]] rules in that host's configuration, and the log of its daemon",
        ),
        OpenError::Timeout => {
            ApiError::new(ErrorCode::Timeout, message, "check the link to that host: pmd peers")
        }
        OpenError::Crowded(_) => ApiError::new(
            ErrorCode::Unreachable,
            message,
            "try again shortly; pmd_dial_requests_total in pmd metrics counts requests dropped by busy links",
        ),
        OpenError::Ended(ended) => ApiError::from(*ended),
        _ => ApiError::new(
            ErrorCode::Unreachable,
            message,
            "check that port 4369 of that host is reachable from here, or set relay = true on a member",
        ),
    }
}

/// The hops so far.
struct Hops {
    begin: Instant,
    last: Instant,
    hops: Vec<api::Hop>,
}

impl Hops {
    fn new(begin: Instant) -> Hops {
        Hops { begin, last: begin, hops: Vec::new() }
    }

    /// Adds a hop that began when the previous one ended.
    fn add(&mut self, hop: &str, what: String) {
        let took = self.last.elapsed();
        self.put(hop, what, took);
        self.mark();
    }

    fn put(&mut self, hop: &str, what: String, took: Duration) {
        self.hops.push(api::Hop { hop: hop.to_owned(), what, took_us: micros(took) });
    }

    fn mark(&mut self) {
        self.last = Instant::now();
    }

    fn done(
        self,
        node: String,
        host: String,
        port: u16,
        path: &str,
        address: Option<SocketAddr>,
    ) -> api::Pinged {
        let took_us = micros(self.begin.elapsed());
        api::Pinged { node, host, port, path: path.to_owned(), address, hops: self.hops, took_us }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
