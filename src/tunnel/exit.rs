//! The end of a tunnel on the host of its target.
//!
//! Only registered nodes and services can be reached, only by members, and only if the rules allow it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use pmd_epmd::names::holder::{NodeSocket, socket_of};
use pmd_protocol::peer::frame::{Back, Open, Opened, Reason};
use pmd_protocol::peer::{Frame, Kind};
use tokio::net::TcpStream;

use super::listener::NoListener;
use super::path::Path;
use super::state::Tunnels;
use super::stream::{bare, first_frame};
use super::table::{NoSeat, Side};
use super::{answering, listener, pipe, proven, rules};
use crate::link::handshake::{Frames, ProvenPeer, close};

/// Timeout for connecting to the target.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Delay after a registry change, so that changes in quick succession are handled together.
const GATHER: Duration = Duration::from_millis(20);

/// Why a tunnel is rejected: the reason, which tells the other side whether to retry, and the explanation for it.
#[derive(Debug)]
struct Refusal(Reason, String);

impl Refusal {
    fn new(text: impl Into<String>) -> Refusal {
        Refusal(Reason::Refused, text.into())
    }
}

/// The registration that a tunnel leads to.
#[derive(Debug, Clone, Copy)]
struct Found {
    port: u16,
    registration: u64,
    /// The user who registered it, where that is known.
    owner: Option<u32>,
}

/// Serves a tunnel of another daemon until it ends.
///
/// A connection that this daemon requested with a dial-back goes to the task that expects it.
pub(super) async fn serve(mut peer: ProvenPeer, tunnels: Arc<Tunnels>, path: &'static str) {
    let (counters, refusals) = (&tunnels.parts.counters, &tunnels.parts.refusals);
    let open = match first_frame(&mut peer.frames).await {
        Some(Frame::Open(open)) => open,
        Some(Frame::Back(Back { token })) => return tunnels.rendezvous.deliver(&token, peer),
        Some(Frame::Ask(ask)) => return answering::serve(&tunnels, peer.hello.id, &ask, peer.frames).await,
        _ => return,
    };
    let ProvenPeer { mut frames, hello, host, address, .. } = peer;
    let begin = Instant::now();
    let refuse = async |mut frames: Frames, Refusal(reason, text): Refusal| {
        counters.tunnels_refused.add();
        refusals.note(address.ip(), false, "tunnel", &format!("a tunnel to {:?}: {text}", open.name));
        tunnels.complain(|| format!("rejected a tunnel from {host} to {:?}: {text}", open.name));
        close(&mut frames, reason, text).await;
    };
    // A completed handshake does not make the peer a member; the registry decides.
    let Some(member) = tunnels.parts.directory.host_of(&hello.id) else {
        let refusal = Refusal(Reason::Busy, "the host is not a known member of the cluster".into());
        return refuse(frames, refusal).await;
    };
    // The member wrote its own entry, so the rules apply to the name that its handshake proved.
    let member = match proven::check(&host, &member) {
        Ok(proven) => proven,
        Err(wrong) => {
            counters.tunnels_wrong_host.add();
            refusals.note(address.ip(), false, "host", &wrong.to_string());
            return refuse(frames, Refusal::new(wrong.to_string())).await;
        }
    };
    // Without an authority, a name is only a claim.
    if !tunnels.parts.directory.has_its_name(&hello.id) {
        counters.tunnels_wrong_host.add();
        let text = format!("another daemon had the host name {member:?} first");
        refusals.note(address.ip(), false, "host", &text);
        return refuse(frames, Refusal::new(text)).await;
    }
    let found = match rules::check(&tunnels.policy().allow, &member, &open.name) {
        Ok(()) => find(&tunnels, &open),
        Err(text) => {
            refusals.note(address.ip(), false, "rule", &text);
            return refuse(frames, Refusal::new(text)).await;
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(refusal) => return refuse(frames, refusal).await,
    };
    // Behind a relay, the address is that of the relay, which many members share.
    let network = (path != Path::Relay.as_str()).then(|| address.ip());
    let seat = match tunnels.table().seat_for(hello.id, network) {
        Ok(seat) => seat,
        Err(error) => {
            error.count(counters);
            return refuse(frames, Refusal(Reason::Busy, error.to_string())).await;
        }
    };
    let Some(_permit) = tunnels.permit() else {
        counters.tunnels_full.add();
        return refuse(frames, Refusal(Reason::Busy, NoSeat::Full.to_string())).await;
    };
    let mut local = match connect(&tunnels, &open.name, found).await {
        Ok(local) => local,
        Err(refusal) => return refuse(frames, refusal).await,
    };
    let took_us = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
    if frames.send(&Frame::Opened(Opened { port: found.port, took_us })).await.is_err() {
        return;
    }
    counters.tunnels_accepted.add();
    let (mut stream, early) = bare(frames);
    let side = Side::Exit {
        from: hello.id,
        name: open.name.as_str().into(),
        service: open.kind == Kind::SERVICE,
        registration: found.registration,
    };
    let listed = tunnels.table().add(seat, side, member, path);
    tokio::select! {
        _ = pipe::join(&mut local, &mut stream, (Vec::new(), early), &listed.tunnel.bytes) => {}
        () = listed.tunnel.closed() => {}
    }
}

fn find(tunnels: &Tunnels, open: &Open) -> Result<Found, Refusal> {
    let local = &tunnels.parts.local;
    let nothing = || Refusal::new(format!("nothing named {:?} is registered here", open.name));
    match open.kind {
        Kind::NAME => {
            let entry = local.names().get(&open.name).ok_or_else(nothing)?;
            if open.creation != 0 && open.creation != entry.creation {
                return Err(Refusal::new(format!("the node {:?} has restarted since the lookup", open.name)));
            }
            let owner = socket_of(&entry).and_then(NodeSocket::owner);
            Ok(Found { port: entry.port, registration: entry.id, owner })
        }
        Kind::SERVICE => {
            let service = local.service(&open.name).ok_or_else(nothing)?;
            // Only administrators can use the control socket, and they may register what other users run.
            Ok(Found { port: service.port, registration: service.id, owner: None })
        }
        _ => Err(nothing()),
    }
}

/// Connects to the program that registered, at an address where it listens.
async fn connect(tunnels: &Tunnels, name: &str, found: Found) -> Result<TcpStream, Refusal> {
    let Found { port, owner, .. } = found;
    let parts = &tunnels.parts;
    let own_ports: BTreeSet<u16> =
        parts.listening.iter().map(SocketAddr::port).chain([parts.ports.1]).collect();
    let look = move || listener::find(port, owner, &own_ports);
    let addresses = match tokio::task::spawn_blocking(look).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            // A program that does not listen yet may do so soon.
            let reason = match error {
                NoListener::Nobody(_) => Reason::Silent,
                _ => Reason::Refused,
            };
            return Err(Refusal(reason, format!("{name:?} is registered but cannot be reached: {error}")));
        }
        // The daemon is shutting down.
        Err(_) => return Err(Refusal(Reason::Busy, "the daemon is shutting down".into())),
    };
    let mut last = std::io::ErrorKind::ConnectionRefused.into();
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    let text = format!("{name:?} is registered but does not accept connections on port {port}: {last}");
    Err(Refusal(Reason::Silent, text))
}

/// Closes tunnels whose registration on this host has ended. Watches the registry only while this host has exits.
pub(super) async fn watch_registrations(tunnels: Arc<Tunnels>) {
    loop {
        tunnels.table().some_exit().await;
        let mut events = tunnels.parts.local.events().watch();
        while close_ended(&tunnels) {
            tokio::select! {
                changed = events.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                }
                // A new exit, whose registration may have ended already.
                () = tunnels.table().some_exit() => {}
            }
        }
    }
}

/// Closes the exits whose registration has ended. Returns whether there were any exits.
fn close_ended(tunnels: &Tunnels) -> bool {
    let mut any = false;
    for tunnel in tunnels.table().all() {
        let Side::Exit { name, service, registration, .. } = &tunnel.side else { continue };
        any = true;
        let local = &tunnels.parts.local;
        let current = if *service {
            local.service(name).map(|service| service.id)
        } else {
            local.names().get(name).map(|entry| entry.id)
        };
        if current != Some(*registration) {
            tunnel.close();
        }
    }
    any
}
