//! What the host in a node's name means: the part after the `@`, as a user has written it.
//!
//! There is one rule for lookups, tunnels and `pmd ping`: `localhost` and loopback addresses are this host; an address of a
//! member is that member; names are compared without regard to case, and in their short and long forms.

use std::net::IpAddr;

use pmd_protocol::peer::NodeId;

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

/// The members, as far as their names and addresses are concerned.
pub trait Members {
    /// The daemons of the hosts with this name; one with a domain means only the host of exactly that name if `exact`.
    fn named(&self, host: &str, exact: bool) -> Vec<NodeId>;

    /// The daemons that advertise this address.
    fn at(&self, address: IpAddr) -> Vec<NodeId>;

    /// The host name of a daemon, in lower case.
    fn name_of(&self, id: &NodeId) -> Option<String>;

    /// The host that has this alias, in lower case.
    fn host_behind(&self, alias: IpAddr) -> Option<String>;

    /// Whether this address is in the range of aliases, and not this host's own alias.
    fn is_alias(&self, address: IpAddr) -> bool;

    /// Whether this address stands for a node on another host.
    fn is_node(&self, address: IpAddr) -> bool;

    /// Whether this address is one of this host's own.
    fn is_own(&self, address: IpAddr) -> bool;
}

impl Meaning {
    /// What `host` means on the host named `own`, outside a cluster or among these members.
    #[must_use]
    pub fn of<M: Members>(host: &str, domains: Domains, own: &str, members: Option<&M>) -> Meaning {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Meaning::of_address(address.to_canonical(), members);
        }
        if is_localhost(host) || host.eq_ignore_ascii_case(own) {
            return Meaning::here();
        }
        let Some(members) = members else {
            return Meaning { this_host: same_host(host, own), ..Meaning::default() };
        };
        let meant = members.named(host, domains == Domains::Exact);
        // The name of another host is not this one, even if this one does not know its own domain.
        let is_whole = |id: &NodeId| members.name_of(id).is_some_and(|name| name.eq_ignore_ascii_case(host));
        let this_host = same_host(host, own) && !meant.iter().any(is_whole);
        Meaning { this_host, members: meant, address: None }
    }

    fn of_address<M: Members>(address: IpAddr, members: Option<&M>) -> Meaning {
        let Some(members) = members else {
            return Meaning { this_host: address.is_loopback(), ..Meaning::default() };
        };
        if let Some(host) = members.host_behind(address) {
            return Meaning { members: members.named(&host, true), ..Meaning::default() };
        }
        // An alias without a host is that of a host that is gone, and not this one.
        if members.is_alias(address) || members.is_node(address) {
            return Meaning::default();
        }
        if address.is_loopback() || members.is_own(address) {
            return Meaning::here();
        }
        Meaning { this_host: false, members: members.at(address), address: Some(address) }
    }
}

/// Names that mean this host on every host (RFC 6761, section 6.3, and the usual `/etc/hosts`).
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    matches!(host.as_str(), "localhost" | "localhost.localdomain" | "ip6-localhost" | "ip6-loopback")
        || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: &str = "127.77.1.2";
    const OWN_ALIAS: &str = "127.77.9.9";

    /// The host with the alias is `far.example.org`; this one has the address 10.0.0.1. The members are 2, far.example.org, at
    /// 10.0.0.2; 3, near, at 10.0.0.3; and 4 and 5, two.a.org and two.b.org, both at 10.0.0.9.
    struct Fixed;

    const MEMBERS: [(u8, &str, &str); 4] = [
        (2, "far.example.org", "10.0.0.2"),
        (3, "near", "10.0.0.3"),
        (4, "two.a.org", "10.0.0.9"),
        (5, "two.b.org", "10.0.0.9"),
    ];

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn all(is_meant: impl Fn(&str, &str) -> bool) -> Vec<NodeId> {
        MEMBERS.iter().filter(|(_, name, at)| is_meant(name, at)).map(|(number, ..)| id(*number)).collect()
    }

    impl Members for Fixed {
        fn named(&self, host: &str, exact: bool) -> Vec<NodeId> {
            let host = host.to_lowercase();
            let short = host.split('.').next().unwrap_or_default();
            let exactly = all(|name, _| name == host);
            match host.contains('.') {
                _ if !exactly.is_empty() => exactly,
                true if exact => Vec::new(),
                true => all(|name, _| name == short),
                false => all(|name, _| name.split_once('.').is_some_and(|(first, _)| first == host)),
            }
        }

        fn at(&self, address: IpAddr) -> Vec<NodeId> {
            all(|_, at| at == address.to_string())
        }

        fn name_of(&self, id: &NodeId) -> Option<String> {
            let [number, ..] = id.as_bytes();
            MEMBERS.iter().find(|(member, ..)| member == number).map(|(_, name, _)| (*name).to_owned())
        }

        fn host_behind(&self, alias: IpAddr) -> Option<String> {
            (alias.to_string() == ALIAS).then(|| "far.example.org".to_owned())
        }

        fn is_alias(&self, address: IpAddr) -> bool {
            address.to_string().starts_with("127.77.") && address.to_string() != OWN_ALIAS
        }

        fn is_node(&self, address: IpAddr) -> bool {
            address.to_string().starts_with("127.78.")
        }

        fn is_own(&self, address: IpAddr) -> bool {
            address.to_string() == "10.0.0.1"
        }
    }

    /// What a host means on `own`: the numbers of the members, with a 1 in front for this host.
    fn meant(own: &str, host: &str, domains: Domains) -> Vec<u8> {
        let meaning = Meaning::of(host, domains, own, Some(&Fixed));
        let here = meaning.this_host.then_some(1).into_iter();
        here.chain(meaning.members.iter().filter_map(|id| id.as_bytes().first().copied())).collect()
    }

    #[test]
    fn loopback_is_this_host_and_an_alias_is_its_host() {
        for host in
            ["localhost", "LOCALHOST", "localhost.", "db.localhost", "127.0.0.1", "::1", "[::1]", "127.9.9.9"]
        {
            assert_eq!(meant("here", host, Domains::Exact), [1], "{host}");
        }
        assert_eq!(meant("here", ALIAS, Domains::Exact), [2]);
        assert_eq!(meant("here", "127.78.1.2", Domains::Exact), [0; 0], "that is a node and no host");
    }

    #[test]
    fn an_address_of_a_member_is_that_member() {
        assert_eq!(meant("here", "10.0.0.1", Domains::Exact), [1]);
        assert_eq!(meant("here", "10.0.0.2", Domains::Exact), [2]);
        assert_eq!(meant("here", "::ffff:10.0.0.2", Domains::Exact), [2]);
        assert_eq!(meant("here", "10.0.0.9", Domains::Exact), [4, 5]);
        assert_eq!(meant("here", "10.0.0.77", Domains::Exact), [0; 0]);
        assert_eq!(
            Meaning::of("10.0.0.2", Domains::Exact, "here", Some(&Fixed)).address,
            "10.0.0.2".parse().ok()
        );
    }

    #[test]
    fn names_are_understood_with_and_without_their_domain() {
        for (host, exact, or_none) in [
            ("far.example.org", vec![2], vec![2]),
            ("FAR.Example.org", vec![2], vec![2]),
            ("far", vec![2], vec![2]),
            ("near", vec![3], vec![3]),
            ("near.example.org", vec![], vec![3]),
            ("far.example.com", vec![], vec![]),
            ("two", vec![4, 5], vec![4, 5]),
            ("two.b.org", vec![5], vec![5]),
            ("nobody", vec![], vec![]),
            ("", vec![], vec![]),
        ] {
            assert_eq!(meant("here", host, Domains::Exact), exact, "{host}");
            assert_eq!(meant("here", host, Domains::OrNone), or_none, "{host}");
        }
    }

    #[test]
    fn outside_a_cluster_this_host_has_a_short_name_a_long_name_and_loopback_addresses() {
        let is_here = |own, host| Meaning::of::<Fixed>(host, Domains::OrNone, own, None).this_host;
        for own in ["web1", "web1.example.org"] {
            for host in ["web1", "WEB1", "web1.example.org", "localhost", "127.0.0.1", "::1"] {
                assert!(is_here(own, host), "{host}");
            }
            for host in ["web2", "web", "", "10.0.0.1", "web1x.example.org"] {
                assert!(!is_here(own, host), "{host}");
            }
        }
        assert!(!is_here("web1.example.org", "web1.example.com"));
    }

    #[test]
    fn an_alias_of_nobody_is_not_this_host() {
        let of = |host: &str| Meaning::of(host, Domains::Exact, "here", Some(&Fixed));
        assert!(of("127.77.3.4").is_unknown());
        assert!(of(OWN_ALIAS).this_host && of("127.0.0.1").this_host && !of(ALIAS).this_host);
    }

    #[test]
    fn the_own_name_is_this_host_unless_another_one_has_exactly_that_name() {
        for (own, host) in [("here", "HERE"), ("here.a.org", "here"), ("here", "here.a.org"), ("far", "far")]
        {
            assert_eq!(meant(own, host, Domains::Exact).first(), Some(&1), "{own} {host}");
        }
        assert_eq!(meant("two", "two.b.org", Domains::Exact), [5]);
        assert_eq!(meant("two.a.org", "two.b.org", Domains::Exact), [5]);
    }
}
