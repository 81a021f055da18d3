//! Applications between hosts that know each other through pmd alone: Mnesia, and the commands of a release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run, run_within};
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{cluster, firewall, inetrc, islands, node};
use crate::support::mapper::{assert_no_stock_epmd, wait_for_names};
use crate::support::node::{Node, require_application};
use crate::support::{installed, succeeded};
use crate::tunnel_names::{cluster_by_api, resolve};

const PROJECT: &str = "defmodule App.MixProject do
  use Mix.Project
  def project, do: [app: :app, version: \"0.1.0\", deps: []]
end
";
const MODULE: &str = "defmodule App do
  def where, do: IO.puts(\"this is #{node()}\")

  def query(host) do
    {:ok, connection} = :gen_tcp.connect(to_charlist(host), 5432, [:binary, active: false])
    {:ok, rows} = :gen_tcp.recv(connection, 4)
    IO.puts(rows)
  end
end
";

#[test]
fn mnesia_replicates_through_tunnels_alone() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    require_application(&hosts[0], "mnesia", "erlang-mnesia");
    let _daemons = cluster(&hosts);
    let mut one = node(&hosts[0], &["-sname", "one"]);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    one.wait("net_adm:ping('two@beta')", "pong");
    for node in [&mut one, &mut two] {
        assert_eq!(node.ask("application:ensure_all_started(mnesia)"), "{ok,[mnesia]}");
    }
    assert_eq!(one.ask("mnesia:change_config(extra_db_nodes, [two@beta])"), "{ok,[two@beta]}");
    let create = "mnesia:create_table(kv, [{ram_copies, [one@alpha, two@beta]}])";
    assert_eq!(one.ask(create), "{atomic,ok}");
    assert_eq!(two.ask("mnesia:wait_for_tables([kv], 20000)"), "ok");
    assert_eq!(one.ask("mnesia:transaction(fun() -> mnesia:write({kv, 1, one}) end)"), "{atomic,ok}");
    assert_eq!(two.ask("mnesia:transaction(fun() -> mnesia:read(kv, 1) end)"), "{atomic,[{kv,1,one}]}");
    assert_eq!(two.ask("mnesia:transaction(fun() -> mnesia:write({kv, 2, two}) end)"), "{atomic,ok}");
    assert_eq!(one.ask("mnesia:transaction(fun() -> mnesia:read(kv, 2) end)"), "{atomic,[{kv,2,two}]}");

    // The node, restarted on another port, starts empty and loads the table from the other host.
    two.kill();
    one.wait("mnesia:system_info(running_db_nodes)", "[one@alpha]");
    let mut again = node(&hosts[1], &["-sname", "two"]);
    assert_eq!(again.ask("application:ensure_all_started(mnesia)"), "{ok,[mnesia]}");
    again.wait("net_adm:ping('one@alpha')", "pong");
    assert_eq!(again.ask("mnesia:change_config(extra_db_nodes, [one@alpha])"), "{ok,[one@alpha]}");
    assert_eq!(again.ask("mnesia:wait_for_tables([kv], 20000)"), "ok");
    assert_eq!(again.ask("lists:sort(mnesia:dirty_all_keys(kv))"), "[1,2]");
    hosts.iter().for_each(assert_no_stock_epmd);
}

/// Builds a release in the host's own directory; returns its `bin/app`.
fn release(host: &Host) -> PathBuf {
    let folder = host.dir().join("app");
    fs::create_dir_all(folder.join("lib")).expect("a folder");
    fs::write(folder.join("mix.exs"), PROJECT).expect("a project");
    fs::write(folder.join("lib/app.ex"), MODULE).expect("a module");
    let mut mix = host.command(installed("mix", "elixir"));
    mix.args(["release", "--quiet"]).current_dir(&folder).env("MIX_ENV", "prod").env("LC_ALL", "C.UTF-8");
    succeeded(&run_within(Duration::from_secs(120), mix));
    folder.join("_build/prod/rel/app/bin/app")
}

/// The environment that a user of a release sets for its commands.
fn of_release(mut command: Command) -> Command {
    command.env("RELEASE_NODE", "app@alpha").env("RELEASE_DISTRIBUTION", "sname");
    command.env("RELEASE_COOKIE", "KEKSDOSE").env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
    command
}

fn pmd_run(host: &Host, app: &Path, command: &[&str]) -> Command {
    let mut run = host.command(pmd());
    run.args(["run", "--"]).arg(app).args(command);
    of_release(run)
}

/// A program on a host that sends "rows" to whoever connects to port 5432, which the firewall lets in.
fn database(host: &Host) -> Node {
    firewall(host, "table inet filter { chain input { tcp dport 5432 accept; }; }");
    let mut database = Node::erl(host, &[]);
    let serve = "begin {ok, L} = gen_tcp:listen(5432, []),
        Serve = fun Serve() -> {ok, S} = gen_tcp:accept(L), gen_tcp:send(S, \"rows\"), Serve() end,
        Pid = spawn(Serve), gen_tcp:controlling_process(L, Pid), put(serving, L) end";
    database.ask(serve);
    database
}

/// Only the release's host can resolve the other's name, for the sake of the database there.
#[test]
fn the_commands_of_a_release_reach_it_from_another_host() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    resolve(&hosts[0], &format!("{} alpha\n{} beta", hosts[0].ip, hosts[1].ip));
    let _daemons = cluster_by_api(&hosts);
    let _database = database(&hosts[1]);
    let app = release(&hosts[0]);
    // As the guide says; the commands below bring what they need themselves.
    let script = app.ancestors().nth(2).expect("a release").join("releases/0.1.0/env.sh");
    let before = fs::read_to_string(&script).expect("the script of the release");
    let mut printed = hosts[0].command(pmd());
    printed.args(["env", "--elixir"]);
    fs::write(&script, format!("{before}\n{}", succeeded(&run(printed)))).expect("the script");
    let mut server = hosts[0].command(&app);
    server.arg("start");
    let server = Program::spawn(of_release(server));
    wait_for_names(&hosts[0], &["app"]);
    // A node registers before it has booted.
    let rpc = |host: &Host| run(pmd_run(host, &app, &["rpc", "App.where()"]));
    wait_until("an answer to rpc on the host itself", || rpc(&hosts[0]).status.success());
    fs::write(&script, before).expect("the script");
    wait_until("an answer to rpc on the other host", || rpc(&hosts[1]).status.success());
    assert_eq!(succeeded(&rpc(&hosts[1])), "this is app@alpha\n");
    let query = run(pmd_run(&hosts[0], &app, &["rpc", "App.query(\"beta\")"]));
    assert_eq!(succeeded(&query), "rows\n", "the database is reached by the name of its host");
    // It was to be in embedded mode, so it loads everything. A second flag for the mode would make newer releases log
    // hundreds of errors.
    let is_loaded = "IO.puts(:erlang.module_loaded(:dets_server))";
    wait_until("all modules of the release", || {
        succeeded(&run(pmd_run(&hosts[0], &app, &["rpc", is_loaded]))) == "true\n"
    });
    assert_eq!(server.stdout(), "");

    let mut shell = hosts[1].command(installed("script", "bsdutils"));
    shell.args(["-qfec", &format!("{} remote", app.display()), "/dev/null"]);
    shell.env("SHELL", "/bin/sh").env("ERL_INETRC", inetrc(&hosts[1]));
    let mut shell = Program::spawn_listening(of_release(shell));
    wait_until("the remote shell to answer", || {
        assert!(shell.is_running(), "it ended: {}{}", shell.stdout(), shell.stderr());
        shell.say("App.where()");
        shell.stdout().contains("this is app@alpha")
    });
    hosts.iter().for_each(assert_no_stock_epmd);
}
