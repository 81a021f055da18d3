//! The end of a tunnel at the host of what it leads to.
//!
//! Only what is registered here can be reached, only by members, and only as far as the rules allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pmd_protocol::peer::frame::{Back, Open, Opened, Reason};
use pmd_protocol::peer::{Decoded, Frame, Kind};
use tokio::net::TcpStream;

use super::connect::bare;
use super::table::Side;
use super::{Tunnels, pipe, rules};
use crate::cluster::addresses::advertised;
use crate::link::handshake::{Frames, Greeted, say_farewell};
use crate::link::permit::Place;

/// How long the other side may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Changes of the registry that come close together are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);

/// Why a tunnel is refused: whether to try again, and what the other side is told.
#[derive(Debug)]
struct Refusal(Reason, String);

impl Refusal {
    fn new(text: impl Into<String>) -> Refusal {
        Refusal(Reason::Refused, text.into())
    }
}

/// What a tunnel leads to.
#[derive(Debug, Clone, Copy)]
struct Found {
    port: u16,
    registration: u64,
}

/// Serves a tunnel of another daemon until it ends.
///
/// A connection that this daemon has asked for goes to where it is waited for.
pub async fn serve(mut greeted: Greeted, tunnels: Arc<Tunnels>, path: &'static str) {
    let context = &tunnels.context;
    let open = match first_frame(&mut greeted.frames).await {
        Some(Frame::Open(open)) => open,
        Some(Frame::Back(Back { token })) => return tunnels.waiting.take(&token, greeted),
        _ => return,
    };
    let Greeted { mut frames, hello, host, address, .. } = greeted;
    let begin = Instant::now();
    let refuse = async |mut frames: Frames, Refusal(reason, text): Refusal| {
        context.counters.tunnels_refused.add();
        context.refusals.note(address.ip(), false, "tunnel", &format!("a tunnel to {:?}: {text}", open.name));
        tunnels.complain(|| format!("refused a tunnel from {host} to {:?}: {text}", open.name));
        say_farewell(&mut frames, reason, shortened(text)).await;
    };
    // The registry says who it is; the greeting alone does not make a member.
    let Some(member) = tunnels.directory.host_of(&hello.id) else {
        let refusal =
            Refusal(Reason::Busy, "it is no member of the cluster, as far as this daemon knows".into());
        return refuse(frames, refusal).await;
    };
    let found = match rules::check(&tunnels.policy().allow, &member, &open.name) {
        Ok(()) => find(&tunnels, &open),
        Err(text) => {
            context.refusals.note(address.ip(), false, "rule", &text);
            return refuse(frames, Refusal::new(text)).await;
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(refusal) => return refuse(frames, refusal).await,
    };
    let (Some(_place), Some(seat)) = (Place::take(context), tunnels.table.seat()) else {
        context.counters.tunnels_full.add();
        return refuse(frames, Refusal(Reason::Busy, "there is no room for more tunnels".into())).await;
    };
    let mut local = match connect(&tunnels, found.port).await {
        Ok(local) => local,
        Err(error) => {
            let text =
                format!("{:?} is registered and does not listen on port {}: {error}", open.name, found.port);
            return refuse(frames, Refusal(Reason::Silent, text)).await;
        }
    };
    let took_us = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
    if frames.send(&Frame::Opened(Opened { port: found.port, took_us })).await.is_err() {
        return;
    }
    context.counters.tunnels_accepted.add();
    let (mut stream, early) = bare(frames);
    let side = Side::Exit {
        from: hello.id,
        name: open.name.as_str().into(),
        service: open.kind == Kind::SERVICE,
        registration: found.registration,
    };
    let listed = tunnels.table.add(seat, side, member, path);
    tokio::select! {
        _ = pipe::join(&mut local, &mut stream, early, &listed.tunnel.bytes) => {}
        () = listed.tunnel.closed() => {}
    }
}

/// What the other side says first; none if it does not say anything in time.
pub(super) async fn first_frame(frames: &mut Frames) -> Option<Frame> {
    let read = async {
        loop {
            match frames.next().await? {
                Ok(Decoded::Frame(frame)) => return Some(frame),
                Ok(Decoded::Skipped { .. }) => {}
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.ok().flatten()
}

fn find(tunnels: &Tunnels, open: &Open) -> Result<Found, Refusal> {
    let registry = &tunnels.context.registry;
    let nothing = || Refusal::new(format!("nothing named {:?} is registered here", open.name));
    match open.kind {
        Kind::NAME => {
            let entry = registry.name(&open.name).ok_or_else(nothing)?;
            if open.creation != 0 && open.creation != entry.creation {
                return Err(Refusal::new(format!("the node {:?} has been restarted since", open.name)));
            }
            Ok(Found { port: entry.port, registration: entry.id })
        }
        Kind::SERVICE => {
            let service = registry.service(&open.name).ok_or_else(nothing)?;
            Ok(Found { port: service.port, registration: service.id })
        }
        _ => Err(nothing()),
    }
}

/// Connects to a program on this host: on loopback, or on the address that it listens on.
async fn connect(tunnels: &Tunnels, port: u16) -> std::io::Result<TcpStream> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let own = advertised(&tunnels.context.listening).into_iter().map(|address| address.ip());
    let mut last = std::io::ErrorKind::ConnectionRefused.into();
    for address in loopback.into_iter().chain(own) {
        let address = SocketAddr::new(address, port);
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Text that fits into a farewell.
fn shortened(mut text: String) -> String {
    let most = pmd_protocol::limits::MAX_REASON;
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

/// Closes tunnels whose registration on this host has ended. Listens to the registry only while there are any.
pub async fn watch_registrations(tunnels: Arc<Tunnels>) {
    loop {
        tunnels.table.some_exit().await;
        let mut news = tunnels.context.registry.events().watch();
        while close_ended(&tunnels) {
            tokio::select! {
                changed = news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(TOGETHER).await;
                }
                // Exits that have opened since, and end with a registration that has ended already.
                () = tunnels.table.some_exit() => {}
            }
        }
    }
}

/// Whether there are any exits left.
fn close_ended(tunnels: &Tunnels) -> bool {
    let mut any = false;
    for tunnel in tunnels.table.all() {
        let Side::Exit { name, service, registration, .. } = &tunnel.side else { continue };
        any = true;
        let registry = &tunnels.context.registry;
        let current = if *service {
            registry.service(name).map(|service| service.id)
        } else {
            registry.name(name).map(|entry| entry.id)
        };
        if current != Some(*registration) {
            tunnel.close();
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_is_cut_between_letters() {
        let long = "ä".repeat(200);
        let short = shortened(long);
        assert_eq!(short.len(), 256);
        assert_eq!(shortened(format!("x{}", "ä".repeat(200))).len(), 255);
    }
}
