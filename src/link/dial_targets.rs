//! Which addresses are dialled. Every dial of another daemon goes through [`DialTargets`].
//!
//! A member chooses the addresses that it advertises (it signs them, so at least nobody else does), and every other
//! member dials them. It must not make others connect to services that trust their own host or its neighbours, so an
//! address that means something else on each host, such as loopback, is dialled only if this daemon has no other kind
//! of address itself: then all daemons that it can reach are where that address means the same.

use std::net::{IpAddr, SocketAddr};

/// Addresses that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialTargets(Vec<SocketAddr>);

/// What an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The host that uses it.
    Host,
    /// A host on the link that it is used on.
    Link,
    /// One host, wherever it is used.
    Global,
    /// No single host.
    None,
}

impl DialTargets {
    /// Addresses that an operator or a discovery plugin has named: all of them.
    #[must_use]
    pub fn of_operator(addresses: &[SocketAddr]) -> DialTargets {
        DialTargets(addresses.to_vec())
    }

    /// Those of the addresses that a member `advertised` that may be dialled by a daemon that advertises `own`.
    #[must_use]
    pub fn of_member(own: &[SocketAddr], advertised: &[SocketAddr]) -> DialTargets {
        let is_allowed = |address: &SocketAddr| match Scope::of(address.ip()) {
            _ if address.port() == 0 => false,
            Scope::Global => true,
            Scope::None => false,
            narrow => !own.is_empty() && own.iter().all(|own| Scope::of(own.ip()) == narrow),
        };
        DialTargets(advertised.iter().filter(|address| is_allowed(address)).copied().collect())
    }

    /// The addresses, in order of preference.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl Scope {
    fn of(ip: IpAddr) -> Scope {
        match ip.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => Scope::Host,
            IpAddr::V4(ip) if ip.is_link_local() => Scope::Link,
            // The whole network 0.0.0.0/8 means "this host on this network" (RFC 1122, section 3.2.1.3).
            IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast() => Scope::None,
            IpAddr::V6(ip) if ip.is_loopback() => Scope::Host,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::Link,
            IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Scope::None,
            _ => Scope::Global,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
    }

    const PUBLIC: &str = "10.0.0.5:4369 192.168.1.9:1 [2001:db8::5]:4369 [fd00::5]:4369 [::ffff:10.0.0.5]:22";
    const LOOPBACK: &str = "127.0.0.1:22 127.9.9.9:4369 [::1]:22 [::ffff:127.0.0.1]:22";
    const LINK_LOCAL: &str = "169.254.1.1:80 [fe80::1]:4369 [::ffff:169.254.169.254]:80";
    const NOWHERE: &str = "0.0.0.0:22 0.1.2.3:22 [::]:22 [::ffff:0.0.0.0]:22 224.0.0.1:22 [::ffff:224.0.0.1]:22 \
                           255.255.255.255:22 [ff02::1]:22 10.0.0.5:0 127.0.0.1:0 [fe80::1]:0";

    #[test]
    fn what_a_member_advertises_is_dialled_only_if_it_means_the_same_here() {
        for (own, public, loopback, link_local) in [
            ("10.0.0.1:4369", true, false, false),
            ("[fd00::1]:4369", true, false, false),
            ("127.0.0.1:4369 10.0.0.1:4369", true, false, false),
            ("127.0.0.1:4369 [fe80::1]:4369", true, false, false),
            ("", true, false, false),
            ("127.0.0.1:4369", true, true, false),
            ("127.0.0.1:4369 [::1]:4369 [::ffff:127.0.0.5]:1", true, true, false),
            ("169.254.7.7:4369 [fe80::7]:4369", true, false, true),
            ("0.0.0.0:4369", true, false, false),
        ] {
            let own = addresses(own);
            for (advertised, expected) in
                [(PUBLIC, public), (LOOPBACK, loopback), (LINK_LOCAL, link_local), (NOWHERE, false)]
            {
                let advertised = addresses(advertised);
                let dialled = DialTargets::of_member(&own, &advertised);
                let expected = if expected { advertised.as_slice() } else { &[] };
                assert_eq!(dialled.addresses(), expected, "{own:?}");
            }
        }
    }

    #[test]
    fn the_others_of_a_list_are_dialled_and_an_operator_may_name_any() {
        let (own, mixed) = (addresses("10.0.0.1:4369"), addresses("127.0.0.1:22 10.0.0.2:4369 [::1]:22"));
        assert_eq!(DialTargets::of_member(&own, &mixed).addresses(), addresses("10.0.0.2:4369"));
        assert_eq!(DialTargets::of_operator(&mixed).addresses(), mixed);
    }
}
