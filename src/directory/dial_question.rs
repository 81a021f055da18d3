//! The question of a node that is about to dial another one, pmd's extension of the EPMD protocol.
//!
//! `PORT_PLEASE2_REQ` for `NAME@HOST@FAMILY`, with the host as it is written in the node's name, and `inet` or `inet6` for
//! the address family. `PORT2_RESP` says where to connect to: the address in its extra field, as `pmd` and 4 or 16 bytes.
//! Stock epmd knows no such name. Two results tell a miss for a host of the cluster from one for any other host.

use std::net::{IpAddr, Ipv4Addr};

use pmd_epmd::server::NotFound;

/// There is no such node on that host, which is a member.
pub const NO_SUCH_NODE: NotFound = NotFound::with(2);
/// The host is this one: its nodes are found without pmd.
pub const THIS_HOST: NotFound = NotFound::with(3);

/// The start of the extra field.
const MARK: &[u8] = b"pmd";

/// The family of the address that a node dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6, where an IPv4 address is written as a mapped one (RFC 4291, section 2.5.5.2).
    Inet6,
}

/// A question where to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialQuestion<'a> {
    /// The node's name, without its host.
    pub name: &'a str,
    /// Its host, as it was written.
    pub host: &'a str,
    /// The family of the address that is wanted.
    pub family: Family,
}

impl<'a> DialQuestion<'a> {
    /// Parses the name in a lookup; `None` if it is any other name.
    #[must_use]
    pub fn parse(asked: &'a str) -> Option<DialQuestion<'a>> {
        let (family, full) = match asked.strip_suffix("@inet") {
            Some(full) => (Family::Inet, full),
            None => (Family::Inet6, asked.strip_suffix("@inet6")?),
        };
        let (name, host) =
            full.split_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty())?;
        Some(DialQuestion { name, host, family })
    }
}

impl Family {
    /// The extra field of a response with this address; `None` if the address is of the other family.
    #[must_use]
    pub fn extra(self, address: IpAddr) -> Option<Vec<u8>> {
        let mut extra = MARK.to_vec();
        match (self, address) {
            (Family::Inet, IpAddr::V4(address)) => extra.extend(address.octets()),
            (Family::Inet6, IpAddr::V4(address)) => extra.extend(mapped(address)),
            (Family::Inet6, IpAddr::V6(address)) => extra.extend(address.octets()),
            (Family::Inet, IpAddr::V6(_)) => return None,
        }
        Some(extra)
    }
}

fn mapped(address: Ipv4Addr) -> [u8; 16] {
    address.to_ipv6_mapped().octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_name_a_host_and_a_family() {
        let parse = |text| DialQuestion::parse(text).map(|found| (found.name, found.host, found.family));
        assert_eq!(parse("bar@far@inet"), Some(("bar", "far", Family::Inet)));
        assert_eq!(parse("bar@fd00::2@inet6"), Some(("bar", "fd00::2", Family::Inet6)));
        for other in ["bar", "bar@far", "bar@inet", "@far@inet", "bar@@inet", "bar@far@inet5", "", "@inet"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_address_is_of_the_family_that_was_asked_for() {
        let four: IpAddr = "127.78.1.2".parse().expect("an address");
        let six: IpAddr = "fd00::2".parse().expect("an address");
        assert_eq!(Family::Inet.extra(four).as_deref(), Some(&b"pmd\x7f\x4e\x01\x02"[..]));
        assert_eq!(Family::Inet.extra(six), None);
        assert_eq!(Family::Inet6.extra(six).map(|extra| extra.len()), Some(19));
        let mapped = Family::Inet6.extra(four).expect("a mapped address");
        assert!(mapped.ends_with(b"\xff\xff\x7f\x4e\x01\x02"), "{mapped:?}");
    }
}
