//! Nodes on two hosts find each other by short and by long names.

use crate::harness::netns::{Host, Lan};
use crate::support::hosts;
use crate::support::mapper::{Daemon, assert_no_stock_epmd, names, wait_for_names};
use crate::support::node::Node;

/// Two hosts with a node each: all methods of listing and finding nodes must agree, from both sides.
fn assert_two_hosts_connect(hosts: &[Host; 2], flag: &str, names_of_nodes: [&str; 2], host_parts: [&str; 2]) {
    let _daemons = [Daemon::start(&hosts[0]), Daemon::start(&hosts[1])];
    let mut nodes = [0, 1].map(|at| Node::erl(&hosts[at], &[flag, names_of_nodes[at]]));
    let full = [0, 1].map(|at| nodes[at].ask("node()"));
    for at in [0, 1] {
        let short = names_of_nodes[at].split('@').next().unwrap();
        assert_eq!(full[at].trim_matches('\''), format!("{short}@{}", host_parts[at]));
    }

    for (here, there) in [(0, 1), (1, 0)] {
        assert!(
            nodes[here].reaches(full[there].trim_matches('\'')),
            "{} does not reach {}",
            full[here],
            full[there]
        );
        assert_eq!(nodes[here].ask("nodes()"), format!("[{}]", full[there]));
        let os_pid = nodes[there].pid();
        let called = nodes[here].ask(&format!("rpc:call({}, os, getpid, [])", full[there]));
        assert_eq!(called, format!("\"{os_pid}\""), "rpc reached another process");

        let registered = names(&hosts[there]);
        let listed = registered.iter().map(|(name, port)| format!("{{\"{name}\",{port}}}"));
        let listed = format!("{{ok,[{}]}}", listed.collect::<Vec<_>>().join(","));
        assert_eq!(nodes[there].ask("net_adm:names()"), listed);
        assert_eq!(nodes[here].ask(&format!("net_adm:names('{}')", host_parts[there])), listed);
    }

    let absent = format!("three@{}", host_parts[1]);
    assert!(!nodes[0].reaches(&absent), "{absent} must not be reachable");
    for host in hosts {
        assert_no_stock_epmd(host);
    }
}

#[test]
fn short_names_connect_two_hosts() {
    let lan = Lan::new();
    let hosts = hosts(&lan, ["alpha", "beta"]);
    assert_two_hosts_connect(&hosts, "-sname", ["one", "two"], ["alpha", "beta"]);
}

#[test]
fn long_names_connect_two_hosts() {
    let lan = Lan::new();
    let hosts = hosts(&lan, ["alpha.cluster.test", "beta.cluster.test"]);
    let parts = ["alpha.cluster.test", "beta.cluster.test"];
    assert_two_hosts_connect(&hosts, "-name", ["one", "two@beta.cluster.test"], parts);
}

#[test]
fn long_names_with_addresses_connect_two_hosts() {
    let lan = Lan::new();
    let hosts = hosts(&lan, ["alpha", "beta"]);
    let parts = [hosts[0].ip.to_string(), hosts[1].ip.to_string()];
    let nodes = [format!("one@{}", parts[0]), format!("two@{}", parts[1])];
    assert_two_hosts_connect(&hosts, "-name", [&nodes[0], &nodes[1]], [&parts[0], &parts[1]]);
}

#[test]
fn nodes_of_one_host_share_its_daemon() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut first = Node::erl(&host, &["-sname", "first"]);
    let mut second = Node::erl(&host, &["-sname", "second-node_2"]);
    wait_for_names(&host, &["first", "second-node_2"]);
    assert!(first.reaches("second-node_2@alpha"));
    assert_eq!(second.ask("nodes()"), "[first@alpha]");
    second.kill();
    wait_for_names(&host, &["first"]);
    first.wait("nodes()", "[]");
}
