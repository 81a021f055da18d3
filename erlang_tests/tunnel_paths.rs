//! Hosts that cannot dial each other: a host that can dial dials back; two that cannot meet at a relay.

use std::net::Ipv4Addr;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{api, configure, firewall, islands, join, node, start, wait_for_members};
use crate::support::node::Node;
use crate::support::told;

/// Drops incoming connections, as a NAT router without a mapping does.
fn drop_new_from(host: &Host, others: &[Ipv4Addr]) {
    let rules: String = others.iter().map(|ip| format!("ip saddr {ip} ct state new drop\n")).collect();
    // IPv6 is also blocked, because it is tried in parallel.
    let rules = rules + "iifname != \"lo\" meta nfproto ipv6 meta l4proto tcp ct state new drop\n";
    let table =
        format!("table inet nat {{\nchain input {{\ntype filter hook input priority -10;\n{rules}}}\n}}\n");
    firewall(host, &table);
}

fn paths(host: &Host) -> Vec<String> {
    let tunnels = api(host, "GET", "/v1/tunnels", "");
    let tunnels = tunnels["tunnels"].as_array().cloned().unwrap_or_default();
    tunnels.iter().filter_map(|tunnel| tunnel["path"].as_str().map(str::to_owned)).collect()
}

fn assert_talk(one: &mut Node, other: &str) {
    one.wait(&format!("net_adm:ping('{other}')"), "pong");
    let size = 5 * 1024 * 1024;
    let answer = one.ask(&format!("byte_size(rpc:call('{other}', binary, copy, [<<7>>, {size}]))"));
    assert_eq!(answer, size.to_string());
}

#[test]
fn a_host_that_cannot_be_dialled_dials_back() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    drop_new_from(&beta, &[alpha.ip]);
    let _daemons = [start(&alpha), start(&beta)];
    join(&beta, &alpha);
    let hosts = [alpha, beta];
    wait_for_members(&hosts);
    let [alpha, beta] = &hosts;
    let mut one = node(alpha, &["-sname", "one"]);
    let _two = node(beta, &["-sname", "two"]);
    assert_talk(&mut one, "two@beta");
    assert_eq!(paths(alpha), ["reverse"]);
    assert_eq!(paths(beta), ["reverse"]);

    // The direct path is used again as soon as it works.
    firewall(beta, "delete table inet nat\n");
    wait_until("a direct connection", || {
        one.ask("erlang:disconnect_node('two@beta')");
        one.reaches("two@beta") && paths(alpha) == ["direct"]
    });
}

#[test]
fn hosts_that_reach_only_the_hub_are_relayed_there() {
    let lan = Lan::new();
    let [hub, spare, alpha, beta] = islands(&lan, ["hub", "spare", "alpha", "beta"]);
    for host in [&hub, &spare] {
        configure(host, "relay = true\n");
    }
    drop_new_from(&alpha, &[hub.ip, spare.ip, beta.ip]);
    drop_new_from(&beta, &[hub.ip, spare.ip, alpha.ip]);
    let mut daemons = [&hub, &spare, &alpha, &beta].map(start);
    join(&spare, &hub);
    for host in [&alpha, &beta] {
        join(host, &hub);
        join(host, &spare);
    }
    let hosts = [hub, spare, alpha, beta];
    wait_for_members(&hosts);
    let [hub, spare, alpha, beta] = &hosts;
    let mut one = node(alpha, &["-sname", "one"]);
    let mut two = node(beta, &["-sname", "two"]);
    assert_talk(&mut one, "two@beta");
    assert_eq!(paths(alpha), ["relay"]);
    assert_eq!(two.ask("nodes()"), "[one@alpha]");
    let mut ping = beta.command(pmd());
    ping.args(["ping", "one@alpha"]);
    let (told_of, why, _) = told(&run(ping));
    assert!(told_of.contains("one@alpha answers, relay"), "{told_of}{why}");

    // The relay in use dies; the next connection goes through the other one.
    let relayed = |host: &Host| api(host, "GET", "/v1/status", "")["counters"]["relayed"].as_u64();
    let in_use = if relayed(hub) > relayed(spare) { 0 } else { 1 };
    daemons[in_use].program.kill();
    wait_until("a connection through the other relay", || one.reaches("two@beta"));
    assert_talk(&mut one, "two@beta");
    assert_eq!(paths(alpha), ["relay"]);
}
