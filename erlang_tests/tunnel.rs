//! Nodes on hosts that no resolver knows, behind firewalls that open only pmd's port.

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{api, cluster, configure, hosts_file, islands, node};
use crate::support::mapper::assert_no_stock_epmd;
use crate::support::node::Node;
use crate::support::succeeded;

/// A message larger than all buffers on the path.
const LARGE: u32 = 100 * 1024 * 1024;

/// What a host's daemon reports about its tunnels.
fn open_tunnels(host: &Host) -> u64 {
    api(host, "GET", "/v1/status", "")["tunnels"]["open"].as_u64().expect("a number")
}

fn connected(hosts: &[Host; 2]) -> (Node, Node) {
    let mut one = node(&hosts[0], &["-sname", "one"]);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    one.wait("net_adm:ping('two@beta')", "pong");
    two.wait("nodes()", "[one@alpha]");
    (one, two)
}

#[test]
fn nodes_reach_each_other_through_pmd_alone() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let (mut one, mut two) = connected(&hosts);
    assert!(two.reaches("one@alpha"));
    assert_eq!(one.ask("nodes()"), "[two@beta]");
    assert_eq!(one.ask("rpc:call('two@beta', erlang, node, [])"), "two@beta");
    assert_eq!(one.ask("[N || {N, _} <- element(2, net_adm:names(beta))]"), "[\"two\"]");
    assert_eq!(one.ask("net_adm:names(alpha) =:= net_adm:names()"), "true");
    assert_eq!(one.ask("erl_epmd:port_please(\"nobody\", beta)"), "noport");

    assert_eq!(one.ask("global:register_name(here, self())"), "yes");
    two.wait("is_pid(global:whereis_name(here))", "true");
    assert_eq!(two.ask("node(global:whereis_name(here))"), "one@alpha");

    let received = one.ask(&format!("byte_size(rpc:call('two@beta', binary, copy, [<<7>>, {LARGE}]))"));
    assert_eq!(received, LARGE.to_string());
    let sent = one.ask(&format!("rpc:call('two@beta', erlang, byte_size, [binary:copy(<<7>>, {LARGE})])"));
    assert_eq!(sent, LARGE.to_string());
    assert!(
        api(&hosts[0], "GET", "/v1/status", "")["tunnels"]["bytes"].as_u64() > Some(2 * u64::from(LARGE))
    );
    hosts.iter().for_each(assert_no_stock_epmd);
}

#[test]
fn a_killed_node_is_seen_at_once_and_its_tunnel_ends() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let (mut one, two) = connected(&hosts);
    assert!(hosts.iter().all(|host| open_tunnels(host) == 1));
    one.ask("erlang:monitor_node('two@beta', true)");
    two.kill();
    one.wait("receive {nodedown, 'two@beta'} -> down after 0 -> up end", "down");
    wait_until("the tunnel to end on both hosts", || hosts.iter().all(|host| open_tunnels(host) == 0));
    assert!(!one.reaches("two@beta"));
    // The node, restarted on another port, is found at the same alias.
    let _again = node(&hosts[1], &["-sname", "two"]);
    one.wait("net_adm:ping('two@beta')", "pong");
}

#[test]
fn a_host_that_is_cut_off_is_detected_by_the_nodes_ticks() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let tick = ["-kernel", "net_ticktime", "4"];
    let mut one = node(&hosts[0], &[&["-sname", "one"][..], &tick].concat());
    let _two = node(&hosts[1], &[&["-sname", "two"][..], &tick].concat());
    one.wait("net_adm:ping('two@beta')", "pong");
    one.ask("erlang:monitor_node('two@beta', true)");
    lan.plug(&hosts[1], false);
    one.wait("receive {nodedown, 'two@beta'} -> down after 0 -> up end", "down");
    lan.plug(&hosts[1], true);
    one.wait("net_adm:ping('two@beta')", "pong");
}

/// The VM re-reads the resolver file while it runs, so a host that joins later is found.
#[test]
fn a_running_node_finds_hosts_that_join_and_names_that_move() {
    let lan = Lan::new();
    let [alpha, beta, gamma, rival] =
        islands(&lan, ["alpha", "beta", "gamma.example.org", "gamma.example.net"]);
    let hosts = [alpha, beta];
    // They have no domain, so hosts of other domains need a rule.
    for host in &hosts {
        configure(host, "[[tunnel_rule]]\nhost = \"gamma.example.*\"\nmode = \"always\"\n");
    }
    let _daemons = cluster(&hosts);
    let (mut one, two) = connected(&hosts);
    let _late = crate::support::cluster::start(&gamma);
    crate::support::cluster::join(&gamma, &hosts[0]);
    let _three = node(&gamma, &["-sname", "two"]);
    // The same short name on another host; both have an alias by now.
    one.wait("net_adm:ping('two@gamma')", "pong");
    assert_eq!(one.ask("lists:sort(nodes())"), "[two@beta,two@gamma]");
    two.kill();
    one.wait("nodes()", "[two@gamma]");
    let text = std::fs::read_to_string(hosts_file(&hosts[0])).expect("a hosts file");
    assert!(text.contains(" gamma.example.org gamma\n"), "{text}");

    // With two hosts of that short name, the alphabetically first gets it, and `pmd status` warns.
    let _rival = crate::support::cluster::start(&rival);
    crate::support::cluster::join(&rival, &hosts[0]);
    wait_until("the short name to mean the other host", || {
        let text = std::fs::read_to_string(hosts_file(&hosts[0])).unwrap_or_default();
        text.contains(" gamma.example.net gamma\n") && text.contains(" gamma.example.org\n")
    });
    wait_until("a warning", || {
        api(&hosts[0], "GET", "/v1/status", "")["warnings"].to_string().contains("share the short name")
    });
}

#[test]
fn tunnels_survive_a_reload_and_end_with_pmd() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let mut daemons = cluster(&hosts);
    let (mut one, mut two) = connected(&hosts);
    for host in &hosts {
        let mut reload = host.command(pmd());
        reload.arg("reload");
        succeeded(&run(reload));
    }
    assert_eq!(one.ask("rpc:call('two@beta', erlang, node, [])"), "two@beta");
    assert!(hosts.iter().all(|host| open_tunnels(host) == 1));
    one.ask("erlang:monitor_node('two@beta', true)");
    daemons[1].program.kill();
    one.wait("receive {nodedown, 'two@beta'} -> down after 0 -> up end", "down");
    two.wait("nodes()", "[]");
}
