//! What the host in a node's name means: the part after the `@`, as a user has written it.
//!
//! There is one rule for lookups, tunnels and `pmd ping`: `localhost` and loopback addresses are this host; an address of a
//! member is that member; names are compared without regard to case, and in their short and long forms.

use std::net::IpAddr;

use pmd_protocol::peer::NodeId;

use super::Directory;
use super::hosts::same_host;

/// The host in a node's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Whether it is this host.
    pub this_host: bool,
    /// The daemons of the members that it may be; several if it is a short name or an address that they share.
    pub members: Vec<NodeId>,
    /// The address, if it is one. Members say about themselves what addresses they have, so one that is reached at this
    /// address is the one that is meant.
    pub address: Option<IpAddr>,
}

impl Meaning {
    fn here() -> Meaning {
        Meaning { this_host: true, ..Meaning::default() }
    }

    /// Whether no host of the cluster is meant.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        !self.this_host && self.members.is_empty()
    }
}

/// How names with a domain are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domains {
    /// A host in this domain.
    Exact,
    /// A host in this domain, or one whose daemon knows no domain.
    OrNone,
}

impl Directory {
    /// What `host` means.
    #[must_use]
    pub fn meaning(&self, host: &str, domains: Domains) -> Meaning {
        let own = self.local().host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.meaning_of_address(address.to_canonical());
        }
        if is_localhost(host) || host.eq_ignore_ascii_case(own) {
            return Meaning::here();
        }
        let members = match &self.others {
            Some(others) => others.cluster.members_named(host, domains == Domains::Exact),
            None => Vec::new(),
        };
        // The name of another host is not this one, even if this one does not know its own domain.
        let is_whole = |id: &NodeId| {
            let name = self.others.as_ref().and_then(|others| others.cluster.host_of(id));
            name.is_some_and(|name| name.eq_ignore_ascii_case(host))
        };
        let this_host = same_host(host, own) && !members.iter().any(is_whole);
        Meaning { this_host, members, address: None }
    }

    fn meaning_of_address(&self, address: IpAddr) -> Meaning {
        let Some(others) = &self.others else {
            return Meaning { this_host: address.is_loopback(), ..Meaning::default() };
        };
        if let Some(host) = others.entrances.host_behind(address) {
            let members = others.cluster.members_named(&host, true);
            return Meaning { members, ..Meaning::default() };
        }
        if others.entrances.is_node(address) {
            return Meaning::default();
        }
        if address.is_loopback() || others.entrances.is_own(address) {
            return Meaning::here();
        }
        Meaning { this_host: false, members: others.cluster.members_at(address), address: Some(address) }
    }
}

/// Names that mean this host on every host (RFC 6761, section 6.3, and the usual `/etc/hosts`).
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    matches!(host.as_str(), "localhost" | "localhost.localdomain" | "ip6-localhost" | "ip6-loopback")
        || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
