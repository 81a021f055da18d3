//! Elixir: nodes, remote evaluation and a remote shell.

use std::process::Command;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run};
use crate::harness::wait_until;
use crate::support::mapper::{Daemon, assert_no_stock_epmd, wait_for_names};
use crate::support::node::{Node, elixir};
use crate::support::{hosts, installed, succeeded};

fn assert_two_nodes_connect(hosts: &[Host; 2], flag: &str) {
    let _daemons = [Daemon::start(&hosts[0]), Daemon::start(&hosts[1])];
    let [mut one, mut two] =
        [Node::elixir(&hosts[0], &[flag, "one"]), Node::elixir(&hosts[1], &[flag, "two"])];
    let full = [format!("one@{}", hosts[0].name), format!("two@{}", hosts[1].name)];
    let [first, second] = full.each_ref().map(|name| format!(":\"{name}\""));

    assert_eq!(one.ask(&format!("Node.ping({second})")), ":pong");
    two.wait(&format!("Node.list() == [{first}]"), "true");
    assert_eq!(one.ask(&format!("Node.disconnect({second})")), "true");
    two.wait("Node.list()", "[]");
    assert_eq!(two.ask(&format!("Node.connect({first})")), "true");
    assert_eq!(two.ask(&format!("Node.ping({first})")), ":pong");
    assert_eq!(one.ask(&format!("Node.list() == [{second}]")), "true");
    assert_eq!(two.ask(&format!("Node.spawn({first}, fn -> :ok end) |> node() == {first}")), "true");
    assert_eq!(one.ask(":net_adm.names() |> elem(1) |> Enum.map(&to_string(elem(&1, 0)))"), "[\"one\"]");
    for host in hosts {
        assert_no_stock_epmd(host);
    }
}

#[test]
fn elixir_short_names_connect_two_hosts() {
    let lan = Lan::new();
    let hosts = hosts(&lan, ["alpha", "beta"]);
    assert_two_nodes_connect(&hosts, "--sname");
}

#[test]
fn elixir_long_names_connect_two_hosts() {
    let lan = Lan::new();
    let hosts = hosts(&lan, ["alpha.cluster.test", "beta.cluster.test"]);
    assert_two_nodes_connect(&hosts, "--name");
}

#[test]
fn elixir_and_erlang_connect() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut erlang = Node::erl(&alpha, &["-sname", "erlang"]);
    let mut elixir = Node::elixir(&beta, &["--sname", "elixir"]);
    assert_eq!(elixir.ask("Node.ping(:erlang@alpha)"), ":pong");
    assert_eq!(erlang.ask("rpc:call(elixir@beta, 'Elixir.System', version, []) =/= []"), "true");
}

#[test]
fn elixir_evaluates_on_another_host() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let _server = Node::elixir(&beta, &["--sname", "server"]);
    let mut caller = elixir(&alpha);
    caller.args(["--sname", "caller", "--rpc-eval", "server@beta", "IO.puts(\"on #{node()}\")"]);
    assert_eq!(succeeded(&run(caller)), "on server@beta\n");
    wait_for_names(&alpha, &[]);
}

/// A remote shell on another host. `iex` opens one only on a terminal, which `script` provides.
#[test]
fn iex_opens_a_shell_on_another_host() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut server = Node::elixir(&beta, &["--sname", "server"]);
    let iex = installed("iex", "elixir");
    let mut shell: Command = alpha.command(installed("script", "bsdutils"));
    shell.args(["-qfec", &format!("{} --sname shell --remsh server@beta", iex.display()), "/dev/null"]);
    shell.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").env("SHELL", "/bin/sh");
    let mut shell = Program::spawn_listening(shell);
    server.wait("Node.list(:connected) |> Enum.map(&to_string/1)", "[\"shell@alpha\"]");
    wait_until("the remote shell to answer", || {
        assert!(shell.is_running(), "iex ended: {}{}", shell.stdout(), shell.stderr());
        shell.say("IO.puts(\"this is #{node()}\")");
        shell.stdout().contains("this is server@beta")
    });
}
