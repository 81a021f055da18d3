//! The tools that ship with Erlang/OTP: `erl_call`, `epmd` as a client, and C nodes.

use std::process::{Command, Output};

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run};
use crate::support::mapper::{Daemon, epmd, names, stock_epmd, wait_for_names};
use crate::support::node::Node;
use crate::support::{fixture, hosts, installed, succeeded, told};

fn erl_call(host: &Host, args: &[&str]) -> Output {
    let mut command = host.command(installed("erl_call", "erlang-base"));
    command.args(args);
    run(command)
}

#[test]
fn erl_call_reaches_nodes_by_short_and_long_name() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha.cluster.test", "beta.cluster.test"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let _short = Node::erl(&alpha, &["-sname", "short"]);
    let _long = Node::erl(&alpha, &["-name", "long"]);
    let call = ["-a", "erlang node []"];

    let on_the_host = erl_call(&alpha, &[&["-sname", "short"], &call[..]].concat());
    assert_eq!(succeeded(&on_the_host).trim_end(), "short@alpha");
    for host in [&alpha, &beta] {
        let short = erl_call(host, &[&["-sname", "short@alpha"], &call[..]].concat());
        assert_eq!(succeeded(&short).trim_end(), "short@alpha");
        let long = erl_call(host, &[&["-name", "long@alpha.cluster.test"], &call[..]].concat());
        assert_eq!(succeeded(&long).trim_end(), "'long@alpha.cluster.test'");
    }
    let (_, stderr, code) = told(&erl_call(&beta, &[&["-sname", "nobody@alpha"], &call[..]].concat()));
    assert_eq!((stderr.trim_end(), code), ("erl_call: failed to connect to node nobody@alpha", Some(1)));

    succeeded(&erl_call(&alpha, &["-sname", "short", "-a", "erlang spawn [init,stop,[]]"]));
    wait_for_names(&alpha, &["long"]);
}

/// The stock client and the client under test query the same daemon and must print the same text.
#[test]
fn both_epmd_clients_print_the_same() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let client = |program: Command, args: &[&str]| {
        let mut program = program;
        program.args(args);
        told(&run(program))
    };
    let same = |args: &[&str]| {
        let stock = client(host.command(stock_epmd()), args);
        let own = client(epmd(&host), args);
        assert_eq!(own, stock, "epmd {args:?}");
        stock
    };
    for refused in [&["-names"], &["-dump"], &["-started"], &["-kill"]] {
        assert_eq!(same(refused).2, Some(1), "no daemon is running yet");
    }

    let daemon = Daemon::start(&host);
    let (text, _, _) = same(&["-names"]);
    assert_eq!(text, "epmd: up and running on port 4369 with data:\n");
    let _one = Node::erl(&host, &["-sname", "one"]);
    let two = Node::erl(&host, &["-sname", "two"]);
    let ports = names(&host);
    let (text, _, code) = same(&["-names"]);
    let expected = format!("name two at port {}\nname one at port {}\n", ports["two"], ports["one"]);
    assert_eq!(text, format!("epmd: up and running on port 4369 with data:\n{expected}"));
    assert_eq!(code, Some(0));

    two.kill();
    wait_for_names(&host, &["one"]);
    let (dump, _, _) = same(&["-dump"]);
    assert!(dump.contains("active name     <one> at port"), "{dump}");
    assert!(dump.contains("old/unused name <two>, port ="), "{dump}");
    assert_eq!(same(&["-started"]).2, Some(0));
    assert_eq!(same(&["-stop", "one"]).2, Some(1), "stop is for relaxed daemons only");
    let (refusal, _, code) = same(&["-kill"]);
    assert_eq!((refusal.as_str(), code), ("Killing not allowed - living nodes in database.\n", Some(1)));
    drop(daemon);
}

#[test]
fn a_c_node_registers_and_answers() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    installed("/usr/include/ei.h", "erlang-dev");
    let binary = alpha.dir().join("cnode");
    let mut compiler = Command::new(installed("cc", "gcc"));
    compiler.arg(fixture("cnode.c")).arg("-o").arg(&binary).args(["-lei", "-lpthread"]);
    succeeded(&run(compiler));

    let mut erlang = Node::erl(&beta, &["-sname", "erlang"]);
    let mut command = alpha.command(&binary);
    command.args(["c1", "alpha", &alpha.ip.to_string(), "KEKSDOSE"]);
    let mut first = Program::spawn(command);
    first.wait_for_text("published");
    wait_for_names(&alpha, &["c1"]);
    let question =
        "begin {any, c1@alpha} ! {self(), hello}, receive {c1, Text} -> Text after 20000 -> late end end";
    assert_eq!(erlang.ask(question), "hello");
    assert_eq!(erlang.ask("nodes(hidden)"), "[c1@alpha]");

    first.kill();
    wait_for_names(&alpha, &[]);
    erlang.wait("nodes(hidden)", "[]");
}
