use std::sync::Arc;

use pmd_protocol::peer::{Host, Metadata, Name};

use super::*;

const ME: NodeId = NodeId::new([1; 32]);
const OTHER: NodeId = NodeId::new([4; 32]);

fn host(name: &str) -> Arc<Entry> {
    Arc::new(Entry::Host(Host {
        host: name.parse().expect("a name"),
        version: "1".into(),
        metadata: Metadata::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    }))
}

fn node(name: &str, port: u16) -> Arc<Entry> {
    Arc::new(Entry::Name(Name {
        name: name.parse().expect("a name"),
        port,
        node_type: 77,
        protocol: 0,
        highest_version: 6,
        lowest_version: 5,
        creation: 1,
        registered_ms: 0,
        extra: Box::default(),
    }))
}

fn up(origin: NodeId, entries: &[Arc<Entry>]) -> Patch {
    let changes = entries.iter().map(|entry| EntryChange { before: None, after: Some(Arc::clone(entry)) });
    Patch::Change { origin, changes: changes.collect() }
}

/// The daemon of the host, if it has the node.
fn find(directory: &ClusterDirectory, name: &str, host: &str) -> Option<NodeId> {
    let members = directory.members_named(host, false);
    members.into_iter().find(|id| directory.node_of(id, name).is_some())
}

fn answers(directory: &ClusterDirectory, name: &str, host: &str) -> bool {
    find(directory, name, host).is_some()
}

#[test]
fn a_node_is_found_on_its_host_until_the_host_is_hidden() {
    let directory = ClusterDirectory::default();
    directory.apply(ME, &up(OTHER, &[host("Far.example.org"), node("bar", 5000)]));
    for found in ["far.example.org", "FAR.EXAMPLE.ORG", "far"] {
        assert!(answers(&directory, "bar", found), "{found}");
    }
    for not in ["fa", "far.example.com.x", "example.org", ""] {
        assert!(!answers(&directory, "bar", not), "{not}");
    }
    assert!(!answers(&directory, "foo", "far"));
    directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
    assert!(!answers(&directory, "bar", "far"));
}

#[test]
fn hosts_are_reported_once_and_those_that_left_separately() {
    let directory = ClusterDirectory::default();
    directory.apply(ME, &up(OTHER, &[host("Far"), node("bar", 5000)]));
    let hosts = directory.hosts(None).expect("nothing was known");
    assert_eq!(hosts.members, BTreeSet::from(["far".to_owned()]));
    directory.apply(ME, &up(OTHER, &[node("baz", 5001)]));
    assert_eq!(directory.hosts(Some(hosts.version)), None, "a node is not a host");
    directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
    let gone = directory.hosts(Some(hosts.version)).expect("it has gone");
    assert!(gone.members.is_empty() && gone.left.is_empty(), "it failed, and did not leave");
    directory.apply(ME, &up(OTHER, &[host("far")]));
    directory.clear();
    let left = directory.hosts(Some(gone.version)).expect("this host has left");
    assert_eq!(left.left, BTreeSet::from(["far".to_owned()]));
}

#[test]
fn names_that_several_daemons_claim_are_known() {
    let directory = ClusterDirectory::new(HeldNames::new(60_000), AgreedAliases::default());
    let third = NodeId::new([3; 32]);
    directory.apply(ME, &up(OTHER, &[host("far")]));
    assert_eq!(directory.contested("here"), []);
    let claim = |by, holder| Claim { host: "far".to_owned(), by, holder, gone_ms: None };
    assert_eq!(directory.contested("FAR"), [claim(OTHER, None)]);
    // Whoever comes second does not get it, although its id is lower.
    directory.apply(ME, &up(third, &[host("Far"), node("bar", 6000)]));
    directory.apply(ME, &up(OTHER, &[node("bar", 5000)]));
    assert_eq!(directory.contested("here"), [claim(third, Some(OTHER))]);
    assert_eq!(directory.lost_claim(&third), Some(claim(third, Some(OTHER))));
    assert!(directory.has_its_name(&OTHER) && !directory.has_its_name(&third));
    assert_eq!(find(&directory, "bar", "far"), Some(OTHER));
    assert_eq!(directory.named_origins().len(), 1);
    assert_eq!(directory.origins().len(), 2);
    // While the first one has failed, nobody has it; once it was expelled, the second one does.
    directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
    assert!(find(&directory, "bar", "far").is_none() && directory.on_host("far").is_empty());
    directory.settle_names();
    assert!(!directory.has_its_name(&third));
    directory.set_expelled(OTHER, true);
    assert_eq!(directory.contested("here"), []);
    assert_eq!(find(&directory, "bar", "far"), Some(third));
}

#[test]
fn a_snapshot_does_not_change() {
    let directory = ClusterDirectory::default();
    directory.apply(ME, &up(OTHER, &[host("far"), node("bar", 5000)]));
    let read = directory.origin(&OTHER).expect("it is there");
    directory.apply(ME, &up(OTHER, &[node("bar", 5001), node("baz", 5002)]));
    assert_eq!(read.count_names(), 1);
    assert_eq!(read.find(Kind::NAME, "bar").and_then(|entry| entry.port()), Some(5000));
    assert_eq!(directory.registered(&OTHER, Kind::NAME, "bar").map(|now| now.port), Some(5001));
}

#[test]
fn this_host_is_not_included() {
    let directory = ClusterDirectory::default();
    directory.apply(ME, &up(ME, &[host("here"), node("foo", 5000)]));
    assert!(!answers(&directory, "foo", "here"));
}

#[test]
fn an_address_is_a_members_as_long_as_the_member_lives() {
    let directory = ClusterDirectory::default();
    let address: SocketAddr = "10.0.0.2:4369".parse().expect("an address");
    directory.apply(ME, &up(OTHER, &[host("far")]));
    directory.set_addresses(OTHER, &[address, address]);
    directory.set_addresses(OTHER, &[address]);
    assert!(directory.is_member(address.ip()));
    assert!(directory.is_member("::ffff:10.0.0.2".parse().expect("an address")));
    directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
    assert!(!directory.is_member(address.ip()));
}

#[test]
fn a_host_is_found_by_its_names_and_its_addresses() {
    let directory = ClusterDirectory::default();
    let members = [
        (2, "far.example.org", "10.0.0.2:4369"),
        (3, "near", "10.0.0.3:4369"),
        (4, "two.a.org", "10.0.0.9:1"),
        (5, "two.b.org", "10.0.0.9:2"),
    ];
    for (number, name, address) in members {
        directory.apply(ME, &up(NodeId::new([number; 32]), &[host(name)]));
        directory.set_addresses(NodeId::new([number; 32]), &[address.parse().expect("an address")]);
    }
    let numbers = |ids: Vec<NodeId>| -> Vec<u8> {
        ids.iter().filter_map(|id| id.as_bytes().first().copied()).collect()
    };
    for (name, exact, or_none) in [
        ("FAR.Example.org", vec![2], vec![2]),
        ("far", vec![2], vec![2]),
        ("near.example.org", vec![], vec![3]),
        ("far.example.com", vec![], vec![]),
        ("two", vec![4, 5], vec![4, 5]),
        ("two.b.org", vec![5], vec![5]),
        ("nobody", vec![], vec![]),
        ("", vec![], vec![]),
    ] {
        assert_eq!(numbers(directory.members_named(name, true)), exact, "{name}");
        assert_eq!(numbers(directory.members_named(name, false)), or_none, "{name}");
    }
    let at = |text: &str| numbers(directory.members_at(text.parse().expect("an address")));
    assert_eq!(at("::ffff:10.0.0.2"), [2]);
    assert_eq!(at("10.0.0.9"), [4, 5]);
    directory.set_addresses(NodeId::new([4; 32]), &[]);
    assert_eq!(at("10.0.0.9"), [5]);
}

#[test]
fn a_restart_is_no_opportunity_to_take_an_alias() {
    let directory = ClusterDirectory::default();
    let aliases = AgreedAliases::new(crate::config::ranges::LoopbackRange::ALIASES, ME, 60_000, 0, "");
    directory.write().aliases = aliases;
    let address = Ipv4Addr::new(127, 77, 250, 250);
    let with = |name: &str, leaving: bool, since_ms: u64| {
        let Entry::Host(host) = (*host(name)).clone() else { panic!("it is a host") };
        let alias = Some(pmd_protocol::peer::Alias { address, since_ms });
        Arc::new(Entry::Host(Host { leaving, alias, ..host }))
    };
    let agreed = || directory.hosts(None).expect("nothing is known").aliases;
    let liar = NodeId::new([7; 32]);
    directory.apply(ME, &up(OTHER, &[with("victim", false, 1_000)]));
    directory.apply(ME, &up(liar, &[with("liar", false, 0)]));
    directory.apply(ME, &up(OTHER, &[with("victim", true, 1_000)]));
    directory.apply(ME, &Patch::Hide { origin: OTHER, entries: Vec::new() });
    assert!(agreed().is_empty(), "it left, and keeps its alias");
    directory.apply(ME, &up(OTHER, &[with("victim", false, 1_000)]));
    assert_eq!(agreed(), BTreeMap::from([("victim".to_owned(), address)]));
}
