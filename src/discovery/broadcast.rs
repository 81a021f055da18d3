//! Finds daemons on the same networks: each sends [beacons](super::beacon) and listens for those of others.
//!
//! Beacons are sent by UDP to the broadcast address of every IPv4 network of the host, and by IPv6 multicast to
//! [`GROUP`] on every link. The UDP port number is that of the daemon's TCP port, unless the configuration says
//! `broadcast:PORT`. Only daemons with the same UDP port hear each other; several daemons on one host can share it.
//!
//! | beacon | reaction |
//! |---|---|
//! | of this daemon | ignored |
//! | of another cluster | shown, not dialled |
//! | of this cluster, without its secret | shown as having another secret, not dialled |
//! | of this cluster, with its secret | source address dialled |
//!
//! Beacons are sent only where the daemon listens: with `--bind ADDRESS`, from these addresses and on the networks of
//! their interfaces, so that every receiver can dial the source. IPv4 beacons received on other interfaces are ignored.
//!
//! A beacon is authenticated with the current cluster secret. While the secret is being changed, beacons authenticated
//! with either of the two accepted secrets belong to this cluster. Clusters with different names or secrets therefore
//! do not mix on one network.
//!
//! [`pace`](super::pace) decides when beacons are sent and answered. If sending fails on a network, it is tried again
//! with the next beacon.

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
/// Rate limit for finds of this cluster: enough for a thousand daemons that start together.
const OURS: Rate = Rate { burst: 1000, per_second: 200 };
/// Rate limit for finds of other clusters, which anybody can forge.
const FOREIGN: Rate = Rate { burst: 50, per_second: 5 };

/// The content of a daemon's beacons, and the secrets that authenticate them.
#[derive(Clone, Debug)]
pub struct BeaconSettings {
    /// The daemon's cluster name.
    pub cluster: String,
    /// The daemon's id.
    pub id: NodeId,
    /// The daemon's TCP port.
    pub port: u16,
    /// The addresses that the daemon listens on, from which its beacons are sent. Empty means all.
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
    /// Creates a plugin for the daemon with these settings.
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
        // One byte longer than any beacon, so that a longer datagram is not truncated to a valid one.
        let (mut buffer4, mut buffer6) = ([0; MAX_BEACON + 1], [0; MAX_BEACON + 1]);
        loop {
            let wake = begin + Duration::from_millis(pace.next_ms());
            let received = tokio::select! {
                () = sleep_until(wake) => {
                    if pace.is_due(now_ms(), &mut rand::rng()) {
                        self.send(&sockets)?;
                        // The interfaces may have changed.
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
                    "ignored a datagram from {from}: this daemon does not listen on the receiving interface"
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
                tracing::debug!("cannot send a beacon to {network}: {error}");
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

/// The classification of a received datagram.
#[derive(Debug, PartialEq, Eq)]
enum BeaconKind {
    /// It is not a beacon, or it is this daemon's own.
    Ignored,
    /// It is from another cluster, or its MAC is wrong.
    Foreign(Find),
    /// It is from a daemon of this cluster.
    Ours(NodeId, Find),
}

impl BeaconSettings {
    fn datagram(&self) -> Result<Vec<u8>, DiscoveryError> {
        let beacon = Beacon::new(&self.cluster, self.id, self.port, rand::random())
            .map_err(DiscoveryError::because)?;
        let cookies = Arc::clone(&self.cookies.borrow());
        let key = cookies.current().ok_or_else(|| DiscoveryError::because("no cluster secret"))?;
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
        let mut address = from;
        address.set_port(beacon.port());
        let cluster = Some(beacon.cluster().to_owned());
        let find = Find { cluster, ..Find::at(Address::from(address).to_string()) };
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

/// The sockets that receive beacons. A host may support only one address family.
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
            // Another program uses the port, which must be reported even if the other address family works.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(failed(&error)),
            Err(error) => {
                tracing::debug!("beacons use only one address family: {error}");
                Ok(Err(error))
            }
        };
        let v4 = usable(listen(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()))?;
        match (v4, usable(listen(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into()))?) {
            (Err(error), Err(_)) => Err(failed(&error)),
            (v4, v6) => Ok(Sockets { v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// Joins the multicast group on `network`. Called before each beacon, because interfaces may have changed.
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
    // Lets several daemons on this host share the port: all of them receive broadcast and multicast datagrams.
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    } else {
        // If the system does not report the receiving interface, beacons are accepted on all interfaces.
        let _ = nix::sys::socket::setsockopt(&socket, Ipv4PacketInfo, &true);
    }
    bind(&socket, &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// A received datagram.
struct Received<'a> {
    datagram: &'a [u8],
    from: SocketAddr,
    /// The index of the receiving interface, if the system reports it.
    interface: Option<u32>,
}

async fn receive_v6<'a>(socket: Option<&UdpSocket>, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let (length, from) = socket.recv_from(buffer).await?;
    let datagram = buffer.get(..length).unwrap_or_default();
    // No check is needed, because the group is joined only on the right interfaces.
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

/// Sends from a new socket, because the interface's addresses may have changed.
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
