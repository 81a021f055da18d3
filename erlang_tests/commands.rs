//! pmd's own commands with real nodes. Stock epmd has no such commands, so these tests run only against pmd.

use std::process::Command;

use serde_json::Value;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run};
use crate::harness::{PATIENCE, pmd, wait_until};
use crate::support::mapper::{Daemon, Mapper, names};
use crate::support::node::Node;
use crate::support::{hosts, succeeded, told};

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(pmd());
    command.args(args);
    command
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

#[test]
fn names_and_lookup_agree_with_the_nodes() {
    if Mapper::under_test() == Mapper::Stock {
        return;
    }
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start_as(Mapper::Stock, &beta)];
    let mut one = Node::erl(&alpha, &["-sname", "one"]);
    let _two = Node::erl(&beta, &["-sname", "two"]);
    let port = names(&alpha)["one"];

    let listed = parsed(&succeeded(&run(command(&alpha, &["names", "--json"]))));
    assert_eq!(listed["names"].as_array().map(Vec::len), Some(1), "{listed:#}");
    let entry = &listed["names"][0];
    assert_eq!(entry["node"], "one@alpha");
    assert_eq!(entry["port"], port);
    assert_eq!(entry["creation"], one.creation());
    for name in ["one", "one@alpha"] {
        let found = succeeded(&run(command(&alpha, &["lookup", name])));
        assert!(found.trim_end().ends_with(&format!(":{port}")), "{found}");
    }
    assert_eq!(told(&run(command(&alpha, &["lookup", "nobody"]))).2, Some(4));

    // The request goes to the other host's port mapper, whether pmd or stock epmd.
    let remote = parsed(&succeeded(&run(command(&alpha, &["names", "beta", "--json"]))));
    assert_eq!(remote["names"][0]["name"], "two");
    assert_eq!(remote["names"][0]["port"], names(&beta)["two"]);
}

#[test]
fn lookup_waits_for_a_node_that_starts_later() {
    if Mapper::under_test() == Mapper::Stock {
        return;
    }
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut waiting = Program::spawn(command(&host, &["lookup", "late", "--wait", "60s"]));
    let _late = Node::erl(&host, &["-sname", "late"]);
    assert!(waiting.wait(PATIENCE).success());
    assert!(waiting.stdout().trim_end().ends_with(&format!(":{}", names(&host)["late"])));
}

#[test]
fn subscribers_are_notified_when_nodes_come_and_go() {
    if Mapper::under_test() == Mapper::Stock {
        return;
    }
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let early = Node::erl(&host, &["-sname", "early"]);
    let stream = Program::spawn(command(&host, &["subscribe", "--since", "0", "--json"]));
    let heard = |kind: &str, name: &str| {
        wait_until(&format!("{kind} of {name}"), || {
            let text = stream.stdout();
            let complete = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            complete.map(parsed).any(|event| event["kind"] == kind && event["name"] == name)
        });
    };
    heard("name_up", "early");
    let late = Node::erl(&host, &["-sname", "late"]);
    heard("name_up", "late");
    early.kill();
    heard("name_down", "early");
    drop(late);
    heard("name_down", "late");
}

#[test]
fn services_are_not_listed_among_the_nodes() {
    if Mapper::under_test() == Mapper::Stock {
        return;
    }
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut one = Node::erl(&host, &["-sname", "one"]);
    succeeded(&run(command(&host, &["register", "web", "-P", "8080"])));
    let found = succeeded(&run(command(&host, &["lookup", "web"])));
    assert!(found.trim_end().ends_with(":8080"), "{found}");
    assert_eq!(one.ask("[Name || {Name, _} <- element(2, net_adm:names())]"), "[\"one\"]");
    assert_eq!(one.ask("erl_epmd:port_please(\"web\", alpha)"), "noport");
}
