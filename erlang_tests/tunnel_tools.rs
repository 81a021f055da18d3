//! Tunnels in daily use: `pmd env`, `pmd run`, `pmd ping`, Elixir, remote shells.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run};
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{self, api, cluster, configure, inetrc, islands, node, start};
use crate::support::node::{Node, elixir};
use crate::support::{fixture, installed, succeeded, told};
use crate::variants::{issue_certificates, tls};

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(pmd());
    command.args(args);
    command
}

#[test]
fn env_and_run_give_a_node_what_it_needs() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let line = succeeded(&run(command(&hosts[0], &["env", "--resolver-only"])));
    assert_eq!(line, format!("export ERL_INETRC={}\n", inetrc(&hosts[0]).display()));
    let line = succeeded(&run(command(&hosts[0], &["env", "--resolver-only", "--systemd"])));
    assert_eq!(line, format!("Environment=\"ERL_INETRC={}\"\n", inetrc(&hosts[0]).display()));

    let _two = node(&hosts[1], &["-sname", "two"]);
    let erl = installed("erl", "erlang-base");
    let mut running = command(&hosts[0], &["run", "--"]);
    running.arg(erl).args(["-noshell", "-sname", "one"]);
    let mut one = Node::spawn(running);
    one.wait("net_adm:ping('two@beta')", "pong");
}

/// What is printed is run as it is printed: by a shell, and as systemd reads a unit.
#[test]
fn what_env_prints_is_enough_for_a_node() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let _two = node(&hosts[1], &["-sname", "two"]);
    let erl = installed("erl", "erlang-base");
    let ping = "io:format(\"~p~n\", [[net_adm:ping('two@beta'), init:get_argument(own)]]), halt().";
    let node = ["-noshell", "-sname", "one", "-eval", ping];
    wait_until("the node to be known", || {
        told(&run(command(&hosts[0], &["lookup", "two@beta"]))).2 == Some(0)
    });

    let mut shell = hosts[0].command("sh");
    // Twice, as by two files of a shell's that both have it, and with flags of the user's.
    let print = format!("eval \"$('{}' env)\"", pmd());
    shell.arg("-euc").arg(format!("{print}; {print}; exec \"$@\"")).arg("sh").arg(&erl).args(node);
    shell.env("ERL_AFLAGS", "-own flag");
    assert_eq!(succeeded(&run(shell)), "[pong,{ok,[[\"flag\"]]}]\n");

    let printed = succeeded(&run(command(&hosts[0], &["env", "--systemd"])));
    let mut unit = hosts[0].command(&erl);
    unit.args(node);
    for line in printed.lines() {
        // In quotation marks, systemd takes a backslash, a quotation mark and a percent sign for special.
        let assignment = line.strip_prefix("Environment=\"").and_then(|rest| rest.strip_suffix('"'));
        let assignment = assignment.filter(|text| !text.contains(['\\', '"', '%']));
        let (name, value) = assignment.and_then(|text| text.split_once('=')).expect("an assignment");
        unit.env(name, value);
    }
    assert_eq!(succeeded(&run(unit)), "[pong,error]\n");
}

/// What a resolver file of the user's own says stays true, and names of other hosts are found as well.
#[test]
fn a_resolver_file_of_the_users_own_is_merged() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let _two = node(&hosts[1], &["-sname", "two"]);
    let own_hosts = hosts[0].dir().join("own-hosts");
    std::fs::write(&own_hosts, "10.2.2.2 of-my-file\n").expect("a hosts file");
    let own = hosts[0].dir().join("own-inetrc");
    let terms =
        format!("{{host, {{10,1,1,1}}, [\"mine\"]}}.\n{{hosts_file, {own_hosts:?}}}.\n{{lookup, [dns]}}.\n");
    std::fs::write(&own, terms).expect("a resolver file");
    let mut running = command(&hosts[0], &["run", "--resolver-only", "--"]);
    running.arg(installed("erl", "erlang-base")).args(["-noshell", "-sname", "one@localhost"]);
    running.env("ERL_INETRC", &own);
    let mut one = Node::spawn(running);
    one.wait("net_adm:ping('two@beta')", "pong");
    assert_eq!(one.ask("inet:getaddr(\"mine\", inet)"), "{ok,{10,1,1,1}}");
    assert_eq!(one.ask("inet:getaddr(\"of-my-file\", inet)"), "{ok,{10,2,2,2}}");
    assert_eq!(one.ask("inet_db:res_option(lookup)"), "[file,dns]");
}

/// Neither the daemon's control socket nor its directory of secrets is theirs.
#[test]
fn a_node_of_another_user_reaches_other_hosts() {
    const USER: u32 = 54_321;
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let _two = node(&hosts[1], &["-sname", "two"]);
    // The built binary may be in a directory that only root can enter.
    let (shared, own) = (hosts[0].dir(), TempDir::new().expect("a folder"));
    std::fs::set_permissions(shared, Permissions::from_mode(0o711)).expect("ours");
    chown(own.path(), Some(USER), Some(USER)).expect("root may");
    let program = shared.join("pmd-for-all");
    std::fs::copy(pmd(), &program).expect("a copy");
    let user = |args: &[&str]| {
        let mut command = hosts[0].command("setpriv");
        command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]).arg(&program).args(args);
        command.env("HOME", own.path()).env_remove("PMD_HOME").current_dir("/");
        command
    };
    wait_until("the node to be known on the other host", || {
        told(&run(user(&["lookup", "two@beta"]))).2 == Some(0)
    });
    let mut running = user(&["run", "--"]);
    running.arg(installed("erl", "erlang-base")).args([
        "-noshell",
        "-sname",
        "one",
        "-setcookie",
        "KEKSDOSE",
    ]);
    running.args(["-eval", "io:format(\"~p~n\", [net_adm:ping('two@beta')]), halt()."]);
    assert_eq!(succeeded(&run(running)), "pong\n");
    assert!(succeeded(&run(user(&["ping", "two@beta"]))).contains("two@beta answers"));
}

#[test]
fn ping_tests_every_hop_and_leaves_no_node_behind() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    two.ask("net_kernel:monitor_nodes(true)");
    wait_until("the node to be known on the other host", || {
        told(&run(command(&hosts[0], &["lookup", "two@beta"]))).2 == Some(0)
    });
    let told_of = succeeded(&run(command(&hosts[0], &["ping", "two@beta"])));
    let hops: Vec<&str> = told_of.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(hops, ["lookup", "daemon", "exit", "greeting", "cookie", "all"], "{told_of}");
    assert!(told_of.contains("two@beta answers, direct"), "{told_of}");
    let here = succeeded(&run(command(&hosts[1], &["ping", "two"])));
    assert!(here.contains("two@beta answers, local"), "{here}");
    assert_eq!(two.ask("receive Any -> Any after 0 -> nothing end"), "nothing");
    two.wait("nodes(connected)", "[]");
    assert_eq!(two.logged(), "", "the node has logged something");

    let (_, why, code) = told(&run(command(&hosts[0], &["ping", "nobody@beta"])));
    assert_eq!(code, Some(4), "{why}");
    let (_, why, code) = told(&run(command(&hosts[0], &["ping", "two@nowhere"])));
    assert_eq!(code, Some(4), "{why}");
}

#[test]
fn elixir_nodes_and_remote_shells_go_through_tunnels() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let run_node = |host: &Host, name: &str| {
        let mut command = elixir(host);
        command.env("ERL_INETRC", inetrc(host)).args(["--sname", name, "--no-halt"]);
        command.arg(fixture("answers.exs"));
        Node::up(command)
    };
    let mut one = run_node(&hosts[0], "one");
    let mut two = run_node(&hosts[1], "two");
    one.wait("Node.ping(:two@beta)", ":pong");
    assert_eq!(two.ask("Node.ping(:one@alpha)"), ":pong");
    assert_eq!(one.ask("Node.list()"), "[:two@beta]");

    let iex = installed("iex", "elixir");
    let mut shell: Command = hosts[0].command(installed("script", "bsdutils"));
    shell.args(["-qfec", &format!("{} --sname shell --remsh two@beta", iex.display()), "/dev/null"]);
    shell.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").env("SHELL", "/bin/sh");
    shell.env("ERL_INETRC", inetrc(&hosts[0]));
    let mut shell = Program::spawn_listening(shell);
    wait_until("the remote shell to answer", || {
        assert!(shell.is_running(), "iex ended: {}{}", shell.stdout(), shell.stderr());
        shell.say("IO.puts(\"this is #{node()}\")");
        shell.stdout().contains("this is two@beta")
    });
}

/// The API tells any program where to connect on its own host.
#[test]
fn lookups_return_the_local_entry() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    let mut found = api(&hosts[0], "GET", "/v1/lookup?name=two@beta", "");
    wait_until("the node to be known on the other host", || {
        found = api(&hosts[0], "GET", "/v1/lookup?name=two@beta", "");
        found["matches"].is_array()
    });
    let entry = found["matches"][0]["entry"].as_str().expect("an entry").to_owned();
    assert!(entry.starts_with("127.77."), "{entry}");
    let mut one = node(&hosts[0], &["-sname", "one"]);
    // A lookup of `name@host` at 127.0.0.1 leads there as well.
    let port = one.ask("element(2, erl_epmd:port_please(\"two@beta\", {127,0,0,1}))");
    let reached = one.ask(&format!("element(1, gen_tcp:connect({{127,0,0,1}}, {port}, []))"));
    assert_eq!(reached, "ok");
    wait_until("the tunnel", || api(&hosts[1], "GET", "/v1/tunnels", "")["tunnels"][0]["name"] == "two");
    assert_eq!(two.ask("nodes()"), "[]");
}

#[test]
fn distribution_over_tls_passes_through() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    issue_certificates([alpha, beta]);
    let [mut one, mut two] = [(alpha, "one"), (beta, "two")].map(|(host, name)| {
        let mut command = cluster::erl(host);
        command.args(["-sname", name]).args(tls(host));
        Node::spawn(command)
    });
    one.wait("net_adm:ping('two@beta')", "pong");
    assert!(two.reaches("one@alpha"));
}

/// A daemon that does not listen on all addresses still answers at the aliases.
#[test]
fn a_daemon_with_explicit_addresses_answers_at_aliases() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    configure(&alpha, &format!("bind = \"{}\"\n", alpha.ip));
    let _daemons = [start(&alpha), start(&beta)];
    cluster::join(&alpha, &beta);
    let hosts = [alpha, beta];
    cluster::wait_for_members(&hosts);
    let _two = node(&hosts[1], &["-sname", "two"]);
    let mut one = node(&hosts[0], &["-sname", "one"]);
    one.wait("net_adm:ping('two@beta')", "pong");
    assert_eq!(one.ask("[N || {N, _} <- element(2, net_adm:names(beta))]"), "[\"two\"]");
}
