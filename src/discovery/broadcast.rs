//! Finds daemons on the same networks: each sends [beacons](super::beacon) and listens for those of others.
//!
//! Beacons are sent by UDP to the broadcast address of every IPv4 network of the host, and by IPv6 multicast to [`GROUP`]
//! on every link. The UDP port has the number of the daemon's TCP port, unless the configuration says `broadcast:PORT`.
//! Only daemons that use the same UDP port hear each other; several daemons of one host can share it.
//!
//! | a beacon | is |
//! |---|---|
//! | of this daemon | ignored |
//! | of another cluster | shown, not dialled |
//! | of this cluster, without its secret | shown as having another secret, not dialled |
//! | of this cluster, with its secret | dialled at the address it came from |
//!
//! Beacons are sent only where the daemon listens: with `--bind ADDRESS`, on the networks of the interfaces that have these
//! addresses, and from these addresses, so that every daemon that hears one can dial its source. IPv4 beacons that come in
//! on other interfaces are ignored.
//!
//! A beacon is authenticated with the current cluster secret. While the secret is being changed, a beacon that was made
//! with either of the two valid ones belongs to this cluster.
//!
//! So clusters with different names or different secrets do not mix on one network. [`pace`](super::pace) decides when
//! beacons are sent and answered. A network on which sending fails is tried again with the next beacon.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use pmd_protocol::peer::NodeId;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::beacon::{Beacon, Heard, MAX_BEACON};
use super::interfaces::{Network, heard_on, networks};
use super::pace::Pace;
use super::{Discovery, DiscoveryError, Find, Finds, Running};
use crate::auth::cookie::Cookies;
use crate::base::rate::{Rate, TokenBucket};
use crate::config::address::Address;

/// The plugin's name.
pub const NAME: &str = "broadcast";
/// The multicast group: link-local, not permanently assigned (RFC 4291, section 2.7), and the letters `pmd`.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x706d, 0x64);
/// Finds of this cluster that are reported: enough for a cluster of a thousand daemons that start together.
const OURS: Rate = Rate { burst: 1000, per_second: 200 };
/// Finds of other clusters that are reported. Anybody can forge them.
const FOREIGN: Rate = Rate { burst: 50, per_second: 5 };

/// What a daemon says in its beacons, and how they are authenticated.
#[derive(Clone, Debug)]
pub struct BeaconSettings {
    /// The name of its cluster.
    pub cluster: String,
    /// Its id.
    pub id: NodeId,
    /// Its TCP port.
    pub port: u16,
    /// The addresses that it listens on: beacons are sent where it can be dialled. None means all.
    pub bind: Vec<IpAddr>,
    /// The UDP port of the beacons.
    pub beacon_port: u16,
    /// The current cluster secrets.
    pub cookies: watch::Receiver<Arc<Cookies>>,
}

/// Sends beacons and listens for them.
#[derive(Debug)]
pub struct Broadcast {
    settings: BeaconSettings,
    networks: fn(&[IpAddr]) -> io::Result<Vec<Network>>,
}

impl Broadcast {
    /// A plugin for the daemon with these settings.
    pub fn new(settings: BeaconSettings) -> Broadcast {
        Broadcast { settings, networks }
    }

    async fn serve(&self, finds: &Finds) -> Result<std::convert::Infallible, DiscoveryError> {
        let sockets = Sockets::open(self.settings.beacon_port)?;
        let mut heard_on = self.heard_on()?;
        let begin = Instant::now();
        let now_ms = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut pace = Pace::new(0);
        let mut ours = TokenBucket::full(OURS, 0);
        let mut foreign = TokenBucket::full(FOREIGN, 0);
        // One byte more than a beacon can have, so that a longer datagram is not cut to a valid one.
        let (mut buffer4, mut buffer6) = ([0; MAX_BEACON + 1], [0; MAX_BEACON + 1]);
        loop {
            let wake = begin + Duration::from_millis(pace.next_ms());
            let received = tokio::select! {
                () = sleep_until(wake) => {
                    if pace.is_due(now_ms(), &mut rand::rng()) {
                        self.send(&sockets)?;
                        // Interfaces come and go.
                        heard_on = self.heard_on()?;
                    }
                    continue;
                }
                received = receive_v4(sockets.v4.as_ref(), &mut buffer4) => received,
                received = receive_v6(sockets.v6.as_ref(), &mut buffer6) => received,
            };
            let Received { datagram, from, interface } = received
                .map_err(|error| DiscoveryError::because(format!("cannot receive beacons: {error}")))?;
            if let (Some(heard_on), Some(interface)) = (&heard_on, interface)
                && !heard_on.contains(&interface)
            {
                tracing::trace!(
                    "ignored a datagram from {from}: it came in on an interface where this daemon does not listen"
                );
                continue;
            }
            let find = match self.settings.classify(datagram, from) {
                BeaconKind::Ignored => continue,
                BeaconKind::Foreign(find) if foreign.take(FOREIGN, now_ms()) => find,
                BeaconKind::Ours(id, find) if ours.take(OURS, now_ms()) => {
                    pace.heard(now_ms(), id, &mut rand::rng());
                    find
                }
                BeaconKind::Foreign(_) | BeaconKind::Ours(..) => continue,
            };
            finds.report(find).await;
        }
    }

    fn heard_on(&self) -> Result<Option<BTreeSet<u32>>, DiscoveryError> {
        heard_on(&self.settings.bind)
            .map_err(|error| DiscoveryError::because(format!("cannot list the interfaces: {error}")))
    }

    /// Sends one beacon to every network.
    fn send(&self, sockets: &Sockets) -> Result<(), DiscoveryError> {
        let datagram = self.settings.datagram()?;
        let networks = (self.networks)(&self.settings.bind)
            .map_err(|error| DiscoveryError::because(format!("cannot list the networks: {error}")))?;
        for network in networks {
            let sent =
                sockets.join(&network).and_then(|()| send(&network, &datagram, self.settings.beacon_port));
            if let Err(error) = sent {
                tracing::debug!("no beacon to {network}: {error}");
            }
        }
        Ok(())
    }
}

impl Discovery for Broadcast {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
        Box::pin(self.serve(finds))
    }
}

/// What a datagram turns out to be.
#[derive(Debug, PartialEq, Eq)]
enum BeaconKind {
    /// It is not a beacon, or it is this daemon's own.
    Ignored,
    /// It is of another cluster, or its MAC is wrong.
    Foreign(Find),
    /// It is of this cluster.
    Ours(NodeId, Find),
}

impl BeaconSettings {
    fn datagram(&self) -> Result<Vec<u8>, DiscoveryError> {
        let beacon = Beacon::new(&self.cluster, self.id, self.port, rand::random())
            .map_err(DiscoveryError::because)?;
        let cookies = Arc::clone(&self.cookies.borrow());
        let key = cookies.current().ok_or_else(|| DiscoveryError::because("there is no cookie"))?;
        Ok(beacon.encode(key))
    }

    fn classify(&self, datagram: &[u8], from: SocketAddr) -> BeaconKind {
        let heard = match Heard::decode(datagram) {
            Ok(heard) => heard,
            Err(error) => {
                tracing::trace!("ignored a datagram from {from}: {error}");
                return BeaconKind::Ignored;
            }
        };
        let beacon = heard.beacon();
        if beacon.id() == self.id {
            return BeaconKind::Ignored;
        }
        let mut place = from;
        place.set_port(beacon.port());
        let cluster = Some(beacon.cluster().to_owned());
        let find = Find { cluster, ..Find::at(Address::from(place).to_string()) };
        if beacon.cluster() != self.cluster {
            return BeaconKind::Foreign(find);
        }
        let cookies = Arc::clone(&self.cookies.borrow());
        if heard.is_proven_by(&cookies) {
            BeaconKind::Ours(beacon.id(), Find { id: Some(beacon.id()), ..find })
        } else {
            BeaconKind::Foreign(Find { other_cookie: true, ..find })
        }
    }
}

/// The sockets that beacons are received on. A host may have only one address family.
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    fn open(port: u16) -> Result<Sockets, DiscoveryError> {
        let failed = |error: &io::Error| {
            DiscoveryError::because(format!(
                "cannot listen for beacons on UDP port {port}: {error}; choose another port with broadcast:PORT"
            ))
        };
        let usable = |opened: io::Result<UdpSocket>| match opened {
            Ok(socket) => Ok(Ok(socket)),
            // This does not depend on the host's abilities: another program has the port, which must be reported.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(failed(&error)),
            Err(error) => {
                tracing::debug!("beacons use one address family only: {error}");
                Ok(Err(error))
            }
        };
        let v4 = usable(listen(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()))?;
        match (v4, usable(listen(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into()))?) {
            (Err(error), Err(_)) => Err(failed(&error)),
            (v4, v6) => Ok(Sockets { v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// Joins the multicast group on `network`. This is done before each beacon, because interfaces come and go.
    fn join(&self, network: &Network) -> io::Result<()> {
        match (network, &self.v6) {
            (Network::V6 { interface, .. }, Some(socket)) => {
                match socket.join_multicast_v6(&GROUP, *interface) {
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => Err(error),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    // For other daemons of this host: all of them receive what is sent to a broadcast or multicast address.
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    } else {
        // If the system does not name the interface of a beacon, beacons are accepted from all interfaces.
        let _ = nix::sys::socket::setsockopt(&socket, Ipv4PacketInfo, &true);
    }
    bind(&socket, &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// A datagram.
struct Received<'a> {
    datagram: &'a [u8],
    from: SocketAddr,
    /// The index of the interface on which it came in, if the system names it.
    interface: Option<u32>,
}

async fn receive_v6<'a>(socket: Option<&UdpSocket>, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let (length, from) = socket.recv_from(buffer).await?;
    let datagram = buffer.get(..length).unwrap_or_default();
    // The group was joined only on the interfaces that count.
    Ok(Received { datagram, from, interface: None })
}

async fn receive_v4<'a>(socket: Option<&UdpSocket>, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let receive = || {
        let mut control = nix::cmsg_space!(libc::in_pktinfo);
        let mut parts = [IoSliceMut::new(&mut *buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let interface = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
            _ => None,
        });
        let from = received.address.ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, SocketAddr::V4(from.into()), interface))
    };
    let (length, from, interface) = socket.async_io(Interest::READABLE, receive).await?;
    Ok(Received { datagram: buffer.get(..length).unwrap_or_default(), from, interface })
}

/// Sends from a new socket, which sees the current addresses of the interface.
fn send(network: &Network, datagram: &[u8], port: u16) -> io::Result<()> {
    let (from, to): (SocketAddr, SocketAddr) = match *network {
        Network::V4 { from, to } => (SocketAddrV4::new(from, 0).into(), SocketAddrV4::new(to, port).into()),
        Network::V6 { from, interface } => (
            SocketAddrV6::new(from, 0, 0, if from.is_unspecified() { 0 } else { interface }).into(),
            SocketAddrV6::new(GROUP, port, 0, interface).into(),
        ),
    };
    let socket = std::net::UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    if to.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    socket.send_to(datagram, to).map(drop)
}

#[cfg(test)]
mod tests;
