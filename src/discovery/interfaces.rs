//! The networks that beacons are sent to.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// Maximum number of networks: a container host has an interface per container.
const MAX_NETWORKS: usize = 64;

/// A network in one address family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Reached by broadcast.
    V4 {
        /// The interface's own address. Sending from it makes the kernel use this interface.
        from: Ipv4Addr,
        /// The broadcast address of the network, or 255.255.255.255 if it has none.
        to: Ipv4Addr,
    },
    /// Reached by multicast.
    V6 {
        /// The source address: the one that the daemon listens on, or unspecified if it listens on all.
        from: Ipv6Addr,
        /// The index of the interface.
        interface: u32,
    },
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::V4 { from, to } => write!(f, "{to} from {from}"),
            Network::V6 { interface, .. } => write!(f, "IPv6 on interface {interface}"),
        }
    }
}

/// The networks of this host, except loopback, on which a daemon listening on the addresses `bind` can be reached. An
/// empty `bind` means all addresses.
///
/// # Errors
///
/// If the interfaces cannot be listed.
pub fn networks(bind: &[IpAddr]) -> io::Result<Vec<Network>> {
    let mut networks: Vec<Network> = getifaddrs()?.filter_map(|address| network(&address, bind)).collect();
    networks.sort_unstable();
    networks.dedup();
    networks.truncate(MAX_NETWORKS);
    Ok(networks)
}

/// The indices of the interfaces on which IPv4 beacons are accepted: those with one of the addresses `bind`. `None`
/// means all interfaces.
///
/// # Errors
///
/// If the interfaces cannot be listed.
pub fn heard_on(bind: &[IpAddr]) -> io::Result<Option<BTreeSet<u32>>> {
    if bind.is_empty() || bind.contains(&Ipv4Addr::UNSPECIFIED.into()) {
        return Ok(None);
    }
    let holds = |of: &InterfaceAddress| {
        let v4 = of.address.as_ref().and_then(|address| Some(address.as_sockaddr_in()?.ip()));
        v4.is_some_and(|v4| bind.contains(&v4.into()))
    };
    // An interface that was just removed has no index and receives no beacons.
    let number = |of: InterfaceAddress| if_nametoindex(of.interface_name.as_str()).ok();
    Ok(Some(getifaddrs()?.filter(holds).filter_map(number).collect()))
}

fn network(of: &InterfaceAddress, bind: &[IpAddr]) -> Option<Network> {
    let has = |flags| of.flags.contains(flags);
    if !has(InterfaceFlags::IFF_UP) || has(InterfaceFlags::IFF_LOOPBACK) {
        return None;
    }
    let address = of.address.as_ref()?;
    let everywhere = |unspecified: IpAddr| bind.is_empty() || bind.contains(&unspecified);
    if let Some(v4) = address.as_sockaddr_in() {
        if !everywhere(Ipv4Addr::UNSPECIFIED.into()) && !bind.contains(&v4.ip().into()) {
            return None;
        }
        let to = of.broadcast.as_ref().and_then(|to| Some(to.as_sockaddr_in()?.ip()));
        // If an interface has no broadcast address, the C library fills in its own address.
        let is_its_own = |to: &Ipv4Addr| *to == v4.ip() || to.is_unspecified();
        return has(InterfaceFlags::IFF_BROADCAST).then(|| Network::V4 {
            from: v4.ip(),
            to: to.filter(|to| !is_its_own(to)).unwrap_or(Ipv4Addr::BROADCAST),
        });
    }
    let v6 = address.as_sockaddr_in6()?;
    let everywhere = everywhere(Ipv6Addr::UNSPECIFIED.into());
    let listens = if everywhere { v6.ip().is_unicast_link_local() } else { bind.contains(&v6.ip().into()) };
    // The bridge itself is served too, so its ports would only duplicate beacons.
    let serves = listens && has(InterfaceFlags::IFF_MULTICAST) && !is_bridge_port(&of.interface_name);
    // Not every system fills in the index, so it is looked up by name.
    let interface = if_nametoindex(of.interface_name.as_str()).ok()?;
    let from = if everywhere { Ipv6Addr::UNSPECIFIED } else { v6.ip() };
    serves.then_some(Network::V6 { from, interface })
}

fn is_bridge_port(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("brport").exists()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use nix::sys::socket::SockaddrStorage;

    use super::*;

    fn address(flags: InterfaceFlags, address: &str, broadcast: Option<&str>) -> InterfaceAddress {
        let v4 = |text: &str| SockaddrStorage::from(SocketAddrV4::new(text.parse().expect("an address"), 0));
        let address = match address.parse() {
            Ok(v6) => SockaddrStorage::from(std::net::SocketAddrV6::new(v6, 0, 0, 0)),
            Err(_) => v4(address),
        };
        InterfaceAddress {
            // Exists on every host.
            interface_name: "lo".into(),
            flags,
            address: Some(address),
            netmask: None,
            broadcast: broadcast.map(v4),
            destination: None,
        }
    }

    #[test]
    fn the_networks_of_this_host_can_be_listed() {
        let networks = networks(&[]).expect("the interfaces");
        assert!(networks.iter().all(|network| !network.to_string().contains("127.")));
    }

    #[test]
    fn beacons_are_accepted_on_interfaces_with_a_listening_address() {
        let heard = |bind: &[&str]| {
            let bind: Vec<IpAddr> = bind.iter().map(|text| text.parse().expect("an address")).collect();
            heard_on(&bind).expect("the interfaces")
        };
        let loopback = BTreeSet::from([if_nametoindex("lo").expect("it exists")]);
        assert_eq!(heard(&[]), None);
        assert_eq!(heard(&["127.0.0.1", "0.0.0.0"]), None);
        assert_eq!(heard(&["127.0.0.1", "::1"]), Some(loopback));
        assert_eq!(heard(&["::", "192.0.2.77"]), Some(BTreeSet::new()));
    }

    #[test]
    fn an_interface_is_served_as_its_flags_allow() {
        use InterfaceFlags as Flags;
        let lan = Flags::IFF_UP | Flags::IFF_BROADCAST | Flags::IFF_MULTICAST;
        let v4 = |to: [u8; 4]| Some(Network::V4 { from: [10, 0, 0, 1].into(), to: to.into() });
        let interface = if_nametoindex("lo").expect("it exists");
        let v6 = Some(Network::V6 { from: Ipv6Addr::UNSPECIFIED, interface });
        for (flags, text, broadcast, network) in [
            (lan, "10.0.0.1", Some("10.0.0.255"), v4([10, 0, 0, 255])),
            (lan, "10.0.0.1", Some("0.0.0.0"), v4([255; 4])),
            (lan, "10.0.0.1", Some("10.0.0.1"), v4([255; 4])),
            (lan, "10.0.0.1", None, v4([255; 4])),
            (lan - Flags::IFF_UP, "10.0.0.1", Some("10.0.0.255"), None),
            (lan - Flags::IFF_BROADCAST, "10.0.0.1", None, None),
            (lan | Flags::IFF_LOOPBACK, "127.0.0.1", None, None),
            (lan, "fe80::1", None, v6),
            (lan, "2001:db8::1", None, None),
            (lan - Flags::IFF_MULTICAST, "fe80::1", None, None),
            (lan | Flags::IFF_LOOPBACK, "fe80::1", None, None),
        ] {
            assert_eq!(super::network(&address(flags, text, broadcast), &[]), network, "{flags:?} {text}");
        }
    }

    #[test]
    fn only_interfaces_with_a_listening_address_are_served() {
        use InterfaceFlags as Flags;
        let lan = Flags::IFF_UP | Flags::IFF_BROADCAST | Flags::IFF_MULTICAST;
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let served = |text: &str, bind: &[&str]| {
            let bind: Vec<IpAddr> = bind.iter().map(|text| ip(text)).collect();
            network(&address(lan, text, None), &bind).map(|network| match network {
                Network::V4 { from, .. } => IpAddr::V4(from),
                Network::V6 { from, .. } => IpAddr::V6(from),
            })
        };
        for (interface, bind, from) in [
            ("10.0.0.1", vec!["10.0.0.1"], Some("10.0.0.1")),
            ("10.0.0.1", vec!["127.0.0.1", "10.9.0.1", "10.0.0.1"], Some("10.0.0.1")),
            ("10.0.0.1", vec!["10.0.0.2"], None),
            ("10.0.0.1", vec!["127.0.0.1", "::1"], None),
            ("10.0.0.1", vec!["0.0.0.0"], Some("10.0.0.1")),
            ("10.0.0.1", vec!["::"], None),
            ("fe80::1", vec!["::"], Some("::")),
            ("fe80::1", vec!["0.0.0.0"], None),
            ("fe80::1", vec!["10.0.0.1"], None),
            ("fe80::1", vec!["fe80::1"], Some("fe80::1")),
            // Other daemons dial a beacon's source address, so it must be a listening address.
            ("fe80::1", vec!["2001:db8::1"], None),
            ("2001:db8::1", vec!["2001:db8::1"], Some("2001:db8::1")),
        ] {
            assert_eq!(served(interface, &bind), from.map(ip), "{interface}, listening at {bind:?}");
        }
    }
}
