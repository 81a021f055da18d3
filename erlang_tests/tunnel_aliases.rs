//! The aliases that all hosts agree on: nodes named by the alias of their own host, and programs that know nothing of pmd
//! and find hosts by the lines of `pmd hosts`.

use std::fs;
use std::process::Command;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{
    cluster, configure, erl_with_resolver, islands, join, node, start, wait_for_members,
};
use crate::support::node::{self, Node};
use crate::support::{installed, succeeded, told};

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(pmd());
    command.args(args);
    command
}

/// The alias of a host, as another one sees it.
fn alias(from: &Host, of: &[&str]) -> String {
    succeeded(&run(command(from, &[&["alias"], of].concat()))).trim_end().to_owned()
}

#[test]
fn a_node_named_by_the_alias_of_its_host_is_reached_from_all_hosts() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta", "gamma"]);
    // One that listens on some addresses alone listens on its aliases one by one.
    configure(&hosts[1], &format!("bind = \"{}\"\n", hosts[1].ip));
    let [_alpha, beta, _gamma] = cluster(&hosts);
    let own = alias(&hosts[1], &[]);
    for host in &hosts {
        assert_eq!(alias(host, &["beta"]), own, "on {}", host.name);
    }
    let full = format!("app@{own}");
    let mut app = node(&hosts[1], &["-name", &full]);
    let mut near = node(&hosts[1], &["-name", "near@beta.example"]);
    near.wait(&format!("net_adm:ping('{full}')"), "pong");
    let mut by_module = node(&hosts[0], &["-name", "one@alpha.example"]);
    by_module.wait(&format!("net_adm:ping('{full}')"), "pong");
    let mut resolving = erl_with_resolver(&hosts[2]);
    resolving.args(["-name", "two@gamma.example"]);
    let mut by_resolver = Node::spawn(resolving);
    by_resolver.wait(&format!("net_adm:ping('{full}')"), "pong");
    let mut other = node(&hosts[2], &["-name", &format!("app@{}", alias(&hosts[2], &[]))]);
    assert!(other.reaches(&full) && app.reaches(&format!("app@{}", alias(&hosts[0], &["gamma"]))));
    let pinged = succeeded(&run(command(&hosts[0], &["ping", &full])));
    assert!(pinged.contains(&format!("{full} answers, direct")), "{pinged}");
    let found = succeeded(&run(command(&hosts[0], &["lookup", &full])));
    assert!(found.starts_with("beta:"), "{found}");

    drop(beta);
    let _beta = start(&hosts[1]);
    join(&hosts[1], &hosts[0]);
    wait_for_members(&hosts);
    assert_eq!((alias(&hosts[1], &[]), alias(&hosts[2], &["beta"])), (own.clone(), own));
    assert_eq!(told(&run(command(&hosts[0], &["alias", "nobody"]))).2, Some(4));
}

#[test]
fn programs_that_know_nothing_of_pmd_find_hosts_by_the_lines_it_prints() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta.example.org"]);
    let [alpha, beta] = &hosts;
    let domain = "[[tunnel_rule]]\nhost = \"*.example.org\"\nmode = \"always\"\n";
    configure(alpha, domain);
    let _daemons = cluster(&hosts);
    let _two = Node::erl(beta, &["-sname", "two"]);
    let _long = Node::erl(beta, &["-name", "long@beta.example.org"]);
    let line = format!("{} beta.example.org beta\n", alias(beta, &[]));
    let print = || succeeded(&run(command(alpha, &["hosts"])));
    wait_until("the line of the other host", || print() == line);
    let file = alpha.dir().join("hosts");
    let before = fs::read_to_string(&file).expect("a hosts file");
    fs::write(&file, before + &line).expect("writing the hosts file");

    let call = |name: &[&str]| {
        let mut command = alpha.command(installed("erl_call", "erlang-base"));
        command.args(name).args(["-a", "erlang node []"]);
        told(&run(command))
    };
    wait_until("the node to be known on the other host", || {
        call(&["-sname", "two@beta"]).0.trim_end() == "two@beta"
    });
    assert_eq!(call(&["-name", "long@beta.example.org"]).0.trim_end(), "'long@beta.example.org'");
    // A node without any variable of pmd's.
    let mut plain = Node::spawn({
        let mut command = node::erl(alpha);
        command.args(["-sname", "plain"]);
        command
    });
    assert!(plain.reaches("two@beta"));
    assert_eq!(print(), line, "what the system knows by these lines alone is printed again");
}
