//! The addresses that this daemon advertises to other members.

use std::net::{IpAddr, SocketAddr};

use pmd_protocol::limits::MAX_ADDRESSES;

/// The addresses to advertise: the listening addresses, with wildcards replaced by the addresses of the interfaces.
/// IPv4 comes first, loopback is used only if there is nothing else, and link-local addresses never, because they are
/// valid on one link only.
#[must_use]
pub fn advertised(listening: &[SocketAddr]) -> Vec<SocketAddr> {
    choose(listening, &interfaces())
}

fn choose(listening: &[SocketAddr], interfaces: &[IpAddr]) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in listening {
        let (ip, port) = (address.ip(), address.port());
        if ip.is_unspecified() {
            let same = interfaces.iter().filter(|other| other.is_ipv4() == ip.is_ipv4());
            all.extend(same.map(|ip| SocketAddr::new(*ip, port)));
        } else {
            all.push(*address);
        }
    }
    all.retain(|address| !is_link_local(address.ip()));
    if all.iter().any(|address| !address.ip().is_loopback()) {
        all.retain(|address| !address.ip().is_loopback());
    }
    all.sort_by_key(|address| address.is_ipv6());
    all.dedup();
    all.truncate(MAX_ADDRESSES);
    all
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn interfaces() -> Vec<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listening: &[&str], interfaces: &[&str]) -> Vec<String> {
        let listening: Vec<SocketAddr> =
            listening.iter().map(|text| text.parse().expect("an address")).collect();
        let interfaces: Vec<IpAddr> =
            interfaces.iter().map(|text| text.parse().expect("an address")).collect();
        choose(&listening, &interfaces).iter().map(ToString::to_string).collect()
    }

    const INTERFACES: [&str; 5] = ["127.0.0.1", "fe80::1", "::1", "fd00::5", "10.0.0.5"];

    #[test]
    fn a_wildcard_is_replaced_by_the_interfaces() {
        assert_eq!(chosen(&["0.0.0.0:4369", "[::]:4369"], &INTERFACES), ["10.0.0.5:4369", "[fd00::5]:4369"]);
        assert_eq!(chosen(&["0.0.0.0:4369"], &INTERFACES), ["10.0.0.5:4369"]);
    }

    #[test]
    fn listening_addresses_are_advertised_and_loopback_only_as_a_last_resort() {
        assert_eq!(
            chosen(&["127.0.0.1:4369", "[::1]:4369", "10.0.0.5:4369"], &INTERFACES),
            ["10.0.0.5:4369"]
        );
        assert_eq!(chosen(&["127.0.0.1:4369", "[::1]:4369"], &INTERFACES), ["127.0.0.1:4369", "[::1]:4369"]);
        assert_eq!(chosen(&["0.0.0.0:4369"], &["127.0.0.1"]), ["127.0.0.1:4369"]);
    }
}
