//! The test of each hop to a node, which takes the host in the node's name as Erlang does and compares the whole name with
//! what the node calls itself.
//!
//! The Erlang cookie is not tested here: it belongs to the user who asks, and never leaves the command line, which tests
//! it with the node itself, at the address that the answer names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use pmd_protocol::peer::frame::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::cluster;
use super::lookup::unknown_host;
use super::request::{Answer, ApiError, RequestBody};
use crate::base::permit::Permit;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{MaybeMember, Measured, Member};
use crate::directory::dial_question::Family;
use crate::directory::meaning::{Domains, Meaning};
use crate::directory::{Directory, Entrances, Node};
use crate::tunnel::connect;
use crate::tunnel::connect::OpenError;
use crate::tunnel::probe::{self, ProbeError};
use crate::tunnel::tls_hello::speaks_tls;

/// How long a node may take to answer the distribution probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the system's resolver may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 16;
/// How often a node is greeted that is busy with another test, and the pause before it is greeted again.
const GREETINGS: usize = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn ping(
    State(directory): State<Arc<Directory>>,
    State(measured): State<Measured>,
    State(member): State<MaybeMember>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::Pinged> {
    let member = cluster::of(&member)?;
    let asked: api::Ping = body.parse()?;
    let permit = Permit::take(&measured.descriptors).ok_or_else(|| {
        ApiError::new(ErrorCode::Full, "no free descriptor", "raise the descriptor limit (ulimit -Hn)")
    })?;
    let mut hops = Hops::new(Instant::now());
    let found = find(&directory, member, &asked.node, &mut hops).await?;
    let pinged = greet(&found, &asked.node, hops).await;
    drop(permit);
    pinged.map(Json)
}

/// A registered node.
struct Found<'a> {
    member: &'a Member,
    /// Its name, without its host.
    name: String,
    /// Its host, as that host calls itself.
    host: String,
    port: u16,
    place: Place,
}

enum Place {
    /// This host, at one of these addresses.
    Here(Vec<IpAddr>),
    There(Box<Node>),
}

async fn find<'a>(
    directory: &Directory,
    member: &'a Member,
    asked: &str,
    hops: &mut Hops,
) -> Result<Found<'a>, ApiError> {
    let own = directory.local().host();
    let (name, host) = asked.rsplit_once('@').unwrap_or((asked, own));
    let meaning = meant(directory, host).await;
    if let Some(entry) = directory.local().names().get(name).filter(|_| meaning.this_host) {
        hops.add("lookup", format!("{name} is registered here with port {}", entry.port));
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let identity = member.cluster.local().identity();
        let addresses = loopback.into_iter().chain(identity.addresses.iter().map(SocketAddr::ip)).collect();
        let place = Place::Here(addresses);
        return Ok(Found { member, name: name.to_owned(), host: own.to_owned(), port: entry.port, place });
    }
    if let Some(node) = directory.node_elsewhere(name, &meaning).await {
        let port = node.entry.port().unwrap_or_default();
        let origin = member.cluster.directory().origin(&node.target.origin);
        let host = origin.map_or_else(|| node.host.clone(), |origin| origin.host_name().to_owned());
        hops.add("lookup", format!("{name} is registered on {host} with port {port}"));
        return Ok(Found { member, name: name.to_owned(), host, port, place: Place::There(Box::new(node)) });
    }
    if meaning.is_unknown() {
        return Err(unknown_host(host));
    }
    let message = format!("no node named {name:?} is registered on {host}");
    Err(ApiError::new(ErrorCode::NotFound, message, "pmd names --cluster lists the registered nodes"))
}

/// What a host means. A name that the cluster does not know may be one of an address of a member, so it is resolved, as a
/// node would.
async fn meant(directory: &Directory, host: &str) -> Meaning {
    let meaning = directory.meaning(host, Domains::OrNone);
    if !meaning.is_unknown() || meaning.address.is_some() {
        return meaning;
    }
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0))).await;
    let Ok(Ok(addresses)) = resolved else { return meaning };
    addresses
        .take(MAX_ADDRESSES)
        .map(|address| directory.meaning(&address.ip().to_string(), Domains::OrNone))
        .find(|meaning| !meaning.is_unknown())
        .unwrap_or(meaning)
}

/// Both ends of a connection to a node.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection to a node.
struct Reached {
    stream: Box<dyn Stream>,
    path: &'static str,
    /// The address of the other daemon, or of the relay.
    address: Option<SocketAddr>,
    /// The address of the node, if it is on this host.
    here: Option<SocketAddr>,
    port: u16,
    /// The hops on the path, and how long they took.
    hops: Vec<(&'static str, String, Duration)>,
}

impl Found<'_> {
    async fn reach(&self, asked: &str) -> Result<Reached, ApiError> {
        match &self.place {
            Place::Here(addresses) => reach_here(&self.name, addresses, self.port).await,
            Place::There(node) => {
                let tunnel = Box::pin(connect::open(&self.member.tunnels, &node.target, 0)).await;
                let tunnel = tunnel.map_err(|error| open_error(asked, &error))?;
                let port = tunnel.opened.port;
                let daemon = format!("{}: completed the handshake via {}", tunnel.path, tunnel.address);
                let exit =
                    format!("its rules allow this host, and the node accepts connections on port {port}");
                Ok(Reached {
                    stream: Box::new(tunnel.stream),
                    path: tunnel.path,
                    address: Some(tunnel.address),
                    here: None,
                    port,
                    hops: vec![("daemon", daemon, tunnel.handshake), ("exit", exit, tunnel.answered)],
                })
            }
        }
    }

    /// Where a program on this host connects to.
    fn entry(&self, reached: &Reached) -> Option<SocketAddr> {
        let Place::There(node) = &self.place else { return reached.here };
        let entrances = &self.member.entrances;
        let entry = entrances.to_dial(node.target.clone(), node.registered, Family::Inet6);
        entry.or_else(|| entrances.address_of(&node.target))
    }
}

async fn reach_here(name: &str, addresses: &[IpAddr], port: u16) -> Result<Reached, ApiError> {
    let begin = Instant::now();
    let mut failed = None;
    for address in addresses {
        let address = SocketAddr::from((*address, port));
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let exit = format!("the node accepts connections on {address}");
                return Ok(Reached {
                    stream: Box::new(stream),
                    path: "local",
                    address: None,
                    here: Some(address),
                    port,
                    hops: vec![("exit", exit, begin.elapsed())],
                });
            }
            Err(error) => failed = failed.or(Some((address, error))),
        }
    }
    let why = failed.map(|(address, error)| format!(" on {address}: {error}")).unwrap_or_default();
    let message = format!("{name} is registered but does not accept connections{why}");
    Err(ApiError::new(ErrorCode::Silent, message, "check whether the node hangs or is suspended"))
}

async fn greet(found: &Found<'_>, asked: &str, mut hops: Hops) -> Result<api::Pinged, ApiError> {
    let own = probe::own_name(found.member.cluster.local().host().as_str());
    let mut reached = found.reach(asked).await?;
    for (hop, what, took) in std::mem::take(&mut reached.hops) {
        hops.put(hop, what, took);
    }
    hops.mark();
    let greeting = async {
        let mut greeted = probe::greet(&mut reached.stream, &own).await;
        for _ in 1..GREETINGS {
            if !matches!(greeted, Err(ProbeError::Busy)) {
                break;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
            reached = found.reach(asked).await?;
            greeted = probe::greet(&mut reached.stream, &own).await;
        }
        // One of TLS distribution may close a connection that does not begin as TLS.
        if matches!(greeted, Err(ProbeError::Closed))
            && let Ok(mut again) = found.reach(asked).await
            && matches!(speaks_tls(&mut again.stream, &found.host).await, Ok(true))
        {
            greeted = Err(ProbeError::Tls);
        }
        Ok(greeted)
    };
    let greeted = tokio::time::timeout(PROBE_TIMEOUT, greeting).await;
    let whole = if asked.contains('@') { asked.to_owned() } else { format!("{asked}@{}", found.host) };
    let name = &found.name;
    let hint = "check whether the node hangs or is suspended";
    let (node, what, tls) = match greeted {
        Ok(Ok(Ok(node))) => {
            probe::check_name(&node, asked).map_err(|message| {
                let hint = "connect to a node by the name that it calls itself, which node() returns there";
                ApiError::new(ErrorCode::Refused, message, hint)
            })?;
            let what = format!("{node} responds as an Erlang node");
            (node, what, false)
        }
        Ok(Ok(Err(ProbeError::NotAllowed))) => {
            let what = format!("{name} responds, and accepts only the nodes that it was told to allow");
            (whole, what, false)
        }
        Ok(Ok(Err(ProbeError::Tls))) => {
            let what =
                format!("{name} speaks TLS distribution; its name, certificate and cookie were not checked");
            (whole, what, true)
        }
        Ok(Ok(Err(error))) => {
            let message =
                format!("{name} accepts connections but does not respond as an Erlang node: {error}");
            return Err(ApiError::new(ErrorCode::Silent, message, hint));
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let seconds = PROBE_TIMEOUT.as_secs();
            let message = format!("{name} accepts connections but did not respond within {seconds} s");
            return Err(ApiError::new(ErrorCode::Timeout, message, hint));
        }
    };
    hops.add("greeting", what);
    Ok(api::Pinged {
        node,
        host: found.host.clone(),
        port: reached.port,
        path: reached.path.to_owned(),
        address: reached.address,
        took_us: micros(hops.begin.elapsed()),
        hops: hops.hops,
        entry: found.entry(&reached),
        tls,
        cookie: None,
    })
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
        OpenError::NotAtAddress(_) => ApiError::new(
            ErrorCode::Unreachable,
            message,
            "call the host by its name, or make port 4369 at that address reachable from here",
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
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
