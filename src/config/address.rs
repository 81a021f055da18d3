//! The address of a daemon in canonical form: different spellings of one address compare equal, and addresses that
//! cannot be dialled are rejected.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use super::types::Port;

/// Maximum length of a host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
/// Maximum length of a label in a host name (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A host and a port, displayed as `HOST:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    /// An address, with the interface index if it is link-local and 0 otherwise.
    Ip(IpAddr, u32),
    /// A name in lower case, without the final dot.
    Name(String),
}

/// Why text is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a name nor an IP address.
    #[error("it is neither a host name nor an IP address; write HOST, HOST:PORT or [IPV6]:PORT")]
    Host,
    /// An IPv4 address with a number out of range, or with too few numbers.
    #[error("it looks like an IPv4 address, but does not consist of four numbers from 0 to 255")]
    Ipv4,
    /// The port after the host is invalid.
    #[error("the port after the host is invalid; a port is a number from 1 to 65535")]
    Port,
    /// An unspecified, broadcast or multicast address.
    #[error("it is not the address of a single host; write a unicast address")]
    NotOne,
}

impl Address {
    /// Parses `text`, with `port` as the default port.
    ///
    /// # Errors
    ///
    /// If it is not an address, or the address cannot be dialled.
    pub fn parse(text: &str, port: u16) -> Result<Address, AddressError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
            let port = match rest.strip_prefix(':') {
                Some(digits) => parse_port(digits)?,
                None if rest.is_empty() => port,
                None => return Err(AddressError::Port),
            };
            return Ok(Address { host: parse_ipv6(host)?, port });
        }
        // Only IPv6 addresses have more than one colon.
        if text.bytes().filter(|byte| *byte == b':').count() > 1 {
            return Ok(Address { host: parse_ipv6(text)?, port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, parse_port(digits)?),
            None => (text, port),
        };
        Ok(Address { host: parse_host(host)?, port })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The IP address, or `None` if the host is given by name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip, _) => Some(ip),
            Host::Name(_) => None,
        }
    }
}

/// Converts IPv4-mapped IPv6 addresses to IPv4.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let scope = match address {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
            _ => 0,
        };
        Address { host: Host::Ip(address.ip().to_canonical(), scope), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(IpAddr::V4(ip), _) => write!(f, "{ip}:{}", self.port),
            Host::Ip(IpAddr::V6(ip), scope) => SocketAddrV6::new(*ip, self.port, 0, *scope).fmt(f),
        }
    }
}

fn parse_port(digits: &str) -> Result<u16, AddressError> {
    Port::from_str(digits).map(Port::get).map_err(|_| AddressError::Port)
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    if let Ok(ip) = text.parse() {
        return one_host(ip, 0);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() > MAX_HOST || !name.split('.').all(good) {
        return Err(AddressError::Host);
    }
    // Resolvers accept "10.1" as an address (inet_aton), but it is almost certainly a typing error.
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if name.rsplit('.').next().is_some_and(number) {
        return Err(AddressError::Ipv4);
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

fn parse_ipv6(text: &str) -> Result<Host, AddressError> {
    let (ip, scope) = match text.split_once('%') {
        Some((ip, scope)) => (ip, scope.parse().map_err(|_| AddressError::Host)?),
        None => (text, 0),
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| AddressError::Host)?;
    one_host(IpAddr::V6(ip).to_canonical(), if ip.is_unicast_link_local() { scope } else { 0 })
}

fn one_host(ip: IpAddr, scope: u32) -> Result<Host, AddressError> {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(AddressError::NotOne);
    }
    Ok(Host::Ip(ip, scope))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, AddressError> {
        Address::parse(text, 4369).map(|address| address.to_string())
    }

    #[test]
    fn all_spellings_have_one_canonical_form() {
        for (text, canonical) in [
            ("10.0.0.1", "10.0.0.1:4369"),
            (" 10.0.0.1:4369\t", "10.0.0.1:4369"),
            ("10.0.0.1:5000", "10.0.0.1:5000"),
            ("Host.Example.", "host.example:4369"),
            ("rabbit_1", "rabbit_1:4369"),
            ("host:1", "host:1"),
            ("::1", "[::1]:4369"),
            ("[0:0::1]", "[::1]:4369"),
            ("[2001:DB8::1]:99", "[2001:db8::1]:99"),
            ("[fe80::1%3]:99", "[fe80::1%3]:99"),
            ("[2001:db8::1%3]:99", "[2001:db8::1]:99"),
            ("::ffff:10.0.0.1", "10.0.0.1:4369"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_rejected() {
        for (text, error) in [
            ("", AddressError::Host),
            (":4369", AddressError::Host),
            ("two words", AddressError::Host),
            ("host/24", AddressError::Host),
            ("-o", AddressError::Host),
            ("a..b", AddressError::Host),
            ("ho\u{1b}[2Jst", AddressError::Host),
            ("[::1", AddressError::Host),
            ("[fe80::1%eth0]", AddressError::Host),
            ("1:2:3", AddressError::Host),
            ("10.0.0.256", AddressError::Ipv4),
            ("10.1", AddressError::Ipv4),
            ("host:", AddressError::Port),
            ("host:0", AddressError::Port),
            ("host:65536", AddressError::Port),
            ("host:+1", AddressError::Port),
            ("[::1]4369", AddressError::Port),
            ("0.0.0.0", AddressError::NotOne),
            ("[::]:4369", AddressError::NotOne),
            ("255.255.255.255", AddressError::NotOne),
            ("224.0.0.1", AddressError::NotOne),
            ("ff02::1", AddressError::NotOne),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&"a".repeat(64)), Err(AddressError::Host));
        assert_eq!(parse(&"ab.".repeat(90)), Err(AddressError::Host));
    }

    #[test]
    fn a_socket_address_converts_to_the_address_it_parses_to() {
        for text in ["10.0.0.1:5", "[fe80::1%3]:5", "[2001:db8::1]:5"] {
            let socket: SocketAddr = text.parse().expect("an address");
            assert_eq!(Ok(Address::from(socket)), Address::parse(text, 1));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_rejected_or_round_trips(text in "[a-z0-9.:%_\\[\\]-]{0,24}|\\PC{0,24}", port in 1_u16..) {
            if let Ok(address) = Address::parse(&text, port) {
                prop_assert_eq!(Address::parse(&address.to_string(), 1), Ok(address));
            }
        }
    }
}
