//! Ranges of loopback addresses and of ports.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::value::Value;

/// The valid prefix lengths: room for at least two hosts, but less than the whole loopback network.
const PREFIXES: RangeInclusive<u8> = 9..=30;

/// A range of loopback addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackRange {
    network: Ipv4Addr,
    prefix: u8,
}

/// The error for text that is not an [`LoopbackRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be a range of loopback addresses such as 127.77.0.0/16, without 127.0.0.1 and with a prefix from 9 to 30"
)]
pub struct NotARange;

impl LoopbackRange {
    /// The default range of the aliases of other hosts.
    pub const ALIASES: LoopbackRange = LoopbackRange { network: Ipv4Addr::new(127, 77, 0, 0), prefix: 16 };
    /// The default range of the addresses of nodes on other hosts.
    pub const NODES: LoopbackRange = LoopbackRange { network: Ipv4Addr::new(127, 78, 0, 0), prefix: 16 };

    /// Whether the ranges have addresses in common.
    #[must_use]
    pub fn overlaps(&self, other: &LoopbackRange) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Whether the range contains `address`.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let shift = 32 - u32::from(self.prefix);
        address.to_bits() >> shift == self.network.to_bits() >> shift
    }

    /// The number of usable addresses: all but the first and the last.
    #[must_use]
    pub fn size(&self) -> u32 {
        (1 << (32 - u32::from(self.prefix))) - 2
    }

    /// The usable address with this index, modulo [`size`](Self::size).
    #[must_use]
    pub fn nth(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1 + index % self.size())
    }
}

impl FromStr for LoopbackRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<LoopbackRange, NotARange> {
        let (network, prefix) = text.split_once('/').ok_or(NotARange)?;
        let network: Ipv4Addr = network.parse().map_err(|_| NotARange)?;
        let prefix: u8 = prefix.parse().map_err(|_| NotARange)?;
        if !network.is_loopback() || !PREFIXES.contains(&prefix) {
            return Err(NotARange);
        }
        let range = LoopbackRange { network, prefix };
        let is_network = network.to_bits().trailing_zeros() >= 32 - u32::from(prefix);
        if !is_network || range.contains(Ipv4Addr::LOCALHOST) {
            return Err(NotARange);
        }
        Ok(range)
    }
}

impl Value for LoopbackRange {
    fn kind() -> String {
        "range of loopback addresses".to_owned()
    }
}

impl fmt::Display for LoopbackRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl<'de> Deserialize<'de> for LoopbackRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LoopbackRange, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for LoopbackRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_string().serialize(serializer)
    }
}

/// A range of ports, such as `28268-32767`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The error for text that is not a [`PortRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be two ports from 1024 to 65535 such as 28268-32767, the smaller one first")]
pub struct NotAPortRange;

impl PortRange {
    /// The number of ports by default.
    const USUAL: u16 = 4500;
    /// The first port that needs no privilege.
    const UNPRIVILEGED: u16 = 1024;
    /// The range below the ephemeral ports that Linux has by default.
    const DEFAULT: PortRange = PortRange { first: 28_268, last: 32_767 };

    /// The ports just below the ephemeral ones. If there are too few, because the system was told to use nearly all ports,
    /// the range is the same as on systems where it was not: programs choose their own ports so that they run on both.
    #[must_use]
    pub fn below(ephemeral: &RangeInclusive<u16>) -> PortRange {
        let last = ephemeral.start().saturating_sub(1);
        match last.checked_sub(Self::USUAL - 1).filter(|first| *first >= Self::UNPRIVILEGED) {
            Some(first) => PortRange { first, last },
            None => Self::DEFAULT,
        }
    }

    /// The number of ports.
    #[must_use]
    pub fn size(&self) -> u16 {
        (self.last - self.first).saturating_add(1)
    }

    /// All ports, beginning with the one with this index, modulo [`size`](Self::size).
    pub fn starting_at(&self, index: u32) -> impl Iterator<Item = u16> + use<> {
        let (first, size) = (self.first, u32::from(self.size()));
        (0..size).filter_map(move |offset| {
            let number = (u64::from(index) + u64::from(offset)) % u64::from(size);
            u16::try_from(number).ok().and_then(|number| first.checked_add(number))
        })
    }
}

impl FromStr for PortRange {
    type Err = NotAPortRange;

    fn from_str(text: &str) -> Result<PortRange, NotAPortRange> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port >= Self::UNPRIVILEGED);
        let (first, last) = text.split_once('-').ok_or(NotAPortRange)?;
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
            _ => Err(NotAPortRange),
        }
    }
}

impl Value for PortRange {
    fn kind() -> String {
        "range of ports".to_owned()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_string().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_in_the_loopback_network_and_excludes_localhost() {
        for right in ["127.77.0.0/16", "127.128.0.0/9", "127.1.2.4/30"] {
            assert_eq!(right.parse::<LoopbackRange>().map(|range| range.to_string()), Ok(right.to_owned()));
        }
        for wrong in [
            "127.77.0.0",
            "10.0.0.0/8",
            "127.0.0.0/8",
            "127.0.0.0/16",
            "127.77.0.1/16",
            "127.77.0.0/31",
            "x/9",
        ] {
            assert_eq!(wrong.parse::<LoopbackRange>(), Err(NotARange), "{wrong}");
        }
        let range: LoopbackRange = "127.1.2.4/30".parse().expect("a range");
        assert!(range.contains(Ipv4Addr::new(127, 1, 2, 6)) && !range.contains(Ipv4Addr::new(127, 1, 2, 8)));
    }

    #[test]
    fn ranges_overlap_if_one_contains_the_other() {
        let range = |text: &str| text.parse::<LoopbackRange>().expect("a range");
        assert!(!LoopbackRange::ALIASES.overlaps(&LoopbackRange::NODES));
        assert!(range("127.77.3.0/24").overlaps(&LoopbackRange::ALIASES));
        assert!(LoopbackRange::ALIASES.overlaps(&range("127.77.3.0/24")));
    }

    #[test]
    fn entry_ports_are_below_the_ephemeral_ones() {
        let below = |first, last| PortRange::below(&(first..=last)).to_string();
        assert_eq!(below(32_768, 60_999), "28268-32767");
        assert_eq!(below(10_000, 65_535), "5500-9999");
        assert_eq!(below(1_024, 65_535), "28268-32767");
        assert_eq!(below(5_000, 65_535), "28268-32767");
    }

    #[test]
    fn every_port_of_a_range_is_tried_once() {
        let range: PortRange = "2000-2002".parse().expect("a range");
        assert_eq!(range.starting_at(4).collect::<Vec<_>>(), [2001, 2002, 2000]);
        for wrong in ["", "2000", "2002-2000", "80-90", "2000-70000", "-", "a-b"] {
            assert_eq!(wrong.parse::<PortRange>(), Err(NotAPortRange), "{wrong}");
        }
    }
}
