use std::sync::Arc;

use pmd_core::replica::view::{EntryChange, Patch};
use pmd_protocol::peer::{Entry, Host, Metadata};

use super::*;
use crate::config::types::EpmdAccess;
use crate::directory::cluster::{ClusterDirectory, Registered};
use crate::directory::local::Local;
use crate::directory::{Entrances, Others, Target};

const ALIAS: &str = "127.77.1.2";

/// The host with the alias is `far.example.org`; this one has the address 10.0.0.1.
#[derive(Debug)]
struct Fixed;

impl Entrances for Fixed {
    fn any(&self) -> bool {
        true
    }

    fn is_alias(&self, address: IpAddr) -> bool {
        address.to_string().starts_with("127.77.")
    }

    fn host_behind(&self, alias: IpAddr) -> Option<String> {
        (alias.to_string() == ALIAS).then(|| "far.example.org".to_owned())
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.to_string() == "10.0.0.1"
    }

    fn is_node(&self, address: IpAddr) -> bool {
        address.to_string().starts_with("127.78.")
    }

    fn tunnels_to(&self, _: &str) -> bool {
        true
    }

    fn to_dial(&self, _: Target, _: Registered) -> Option<std::net::SocketAddr> {
        None
    }

    fn entry(&self, _: IpAddr, _: Target, _: Registered) -> Option<u16> {
        None
    }
}

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

/// The members are 2, far.example.org, at 10.0.0.2; 3, near, at 10.0.0.3; and 4 and 5, two.a.org and two.b.org, both at
/// 10.0.0.9.
fn directory(own: &str) -> Directory {
    let cluster = Arc::new(ClusterDirectory::default());
    let members = [
        (2, "far.example.org", "10.0.0.2:4369"),
        (3, "near", "10.0.0.3:4369"),
        (4, "two.a.org", "10.0.0.9:4369"),
        (5, "two.b.org", "10.0.0.9:4370"),
    ];
    for (number, host, address) in members {
        let entry = Entry::Host(Host {
            host: host.parse().expect("a name"),
            version: "1".into(),
            metadata: Metadata::default(),
            leaving: false,
            relay: false,
            secret_ms: 0,
        });
        let changes = vec![EntryChange { before: None, after: Some(Arc::new(entry)) }];
        cluster.apply(id(1), &Patch::Change { origin: id(number), changes });
        cluster.set_addresses(id(number), &[address.parse().expect("an address")]);
    }
    let local = Arc::new(Local::new(own.to_owned(), 4369, 0));
    Directory::new(local, Some(Others { cluster, entrances: Arc::new(Fixed) }), EpmdAccess::Open)
}

/// What a host means on `own`: the numbers of the members, with a 1 in front for this host.
fn meant(own: &str, host: &str, domains: Domains) -> Vec<u8> {
    let meaning = directory(own).meaning(host, domains);
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
    assert_eq!(directory("here").meaning("10.0.0.2", Domains::Exact).address, "10.0.0.2".parse().ok());
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
fn the_own_name_is_this_host_unless_another_one_has_exactly_that_name() {
    for (own, host) in [("here", "HERE"), ("here.a.org", "here"), ("here", "here.a.org"), ("far", "far")] {
        assert_eq!(meant(own, host, Domains::Exact).first(), Some(&1), "{own} {host}");
    }
    assert_eq!(meant("two", "two.b.org", Domains::Exact), [5]);
    assert_eq!(meant("two.a.org", "two.b.org", Domains::Exact), [5]);
}
