//! The epmd module that `pmd run` hands to nodes: every way to name a node, over every address family, and nothing else
//! about the host changes.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::support::cluster::{cluster, erl, erl_with_resolver, firewall, islands, node};
use crate::support::node::Node;
use crate::support::{fixture, installed, succeeded};

/// What the hosts file of a host says, besides its own name.
pub(crate) fn resolve(host: &Host, lines: &str) {
    let own = format!("127.0.0.1 localhost\n::1 localhost\n{lines}\n");
    fs::write(host.dir().join("hosts"), own).expect("a hosts file");
}

/// The addresses at which some program on a host listens.
fn listening(host: &Host) -> BTreeSet<String> {
    let mut command = host.command("ss");
    command.arg("-Hltn");
    let text = succeeded(&run(command));
    text.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

/// K1: an entry of pmd's took the port that a node of its own host was configured to listen on.
#[test]
fn a_node_may_listen_on_the_port_of_a_node_that_is_reached_through_pmd() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let fixed = ["-kernel", "inet_dist_listen_min", "45672", "-kernel", "inet_dist_listen_max", "45672"];
    let _fix = node(&hosts[1], &[&["-sname", "fix"][..], &fixed].concat());
    let before = listening(&hosts[0]);
    let mut one = node(&hosts[0], &["-sname", "one"]);
    one.wait("net_adm:ping('fix@beta')", "pong");
    let more: Vec<_> = listening(&hosts[0]).difference(&before).cloned().collect();
    assert_eq!(more.len(), 1, "the node's own port, and none of pmd's: {more:?}");
    let mut same = node(&hosts[0], &[&["-sname", "same"][..], &fixed].concat());
    assert!(same.reaches("fix@beta") && same.reaches("one@alpha"));
}

/// K2: under `pmd run`, every connection by a host's name went to its alias.
#[test]
fn what_is_no_distribution_goes_where_the_name_says() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    resolve(&hosts[0], &format!("{} alpha\n{} beta", hosts[0].ip, hosts[1].ip));
    let _daemons = cluster_by_api(&hosts);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    firewall(
        &hosts[1],
        "flush ruleset
         table inet filter {
             chain input {
                 type filter hook input priority 0; policy drop;
                 iif lo accept
                 ct state established,related accept
                 tcp dport { 4369, 5432 } accept
             }
         }",
    );
    two.ask("begin spawn(fun() -> {ok, L} = gen_tcp:listen(5432, []), {ok, S} = gen_tcp:accept(L), gen_tcp:send(S, \"rows\"), receive stop -> ok end end), ok end");
    let mut one = node(&hosts[0], &["-sname", "one"]);
    one.wait("net_adm:ping('two@beta')", "pong");
    let rows = "begin {ok, S} = gen_tcp:connect(\"beta\", 5432, [{active, false}]), gen_tcp:recv(S, 4) end";
    assert_eq!(one.ask(rows), "{ok,\"rows\"}");
    assert_eq!(
        one.ask("inet:getaddr(\"beta\", inet)"),
        format!("{{ok,{{{}}}}}", hosts[1].ip.to_string().replace('.', ","))
    );
}

/// Like [`cluster`], for hosts whose names are known without pmd, so that the hosts file never lists them.
pub(crate) fn cluster_by_api(hosts: &[Host; 2]) -> [crate::support::mapper::Daemon; 2] {
    let daemons = [crate::support::cluster::start(&hosts[0]), crate::support::cluster::start(&hosts[1])];
    crate::support::cluster::join(&hosts[1], &hosts[0]);
    daemons
}

/// K3 and K7: the host in a node's name is whatever the node was told.
#[test]
fn nodes_are_reached_by_whatever_name_they_have() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "kx"]);
    let [alpha, kx] = &hosts;
    // kx knows itself by a domain that its daemon does not know, and both know a name of a service.
    resolve(kx, &format!("{0} kx.corp.example kx\n{0} mq-a", kx.ip));
    resolve(alpha, &format!("{} alpha\n{} mq-a", alpha.ip, kx.ip));
    let _daemons = cluster(&hosts);
    let by_address = format!("ipn@{}", kx.ip);
    let of_own_host = node(alpha, &["-sname", "ejabberd@localhost"]);
    let long = node(kx, &["-name", "foo"]);
    let addressed = node(kx, &["-name", &by_address]);
    let service = node(kx, &["-sname", "rabbit@mq-a"]);
    let mut one = node(alpha, &["-name", "one@alpha.corp.example"]);
    one.wait("net_adm:ping('foo@kx.corp.example')", "pong");
    one.wait(&format!("net_adm:ping('{by_address}')"), "pong");
    let mut other = node(alpha, &["-name", "other@alpha.elsewhere.example"]);
    assert!(other.reaches("foo@kx.corp.example"), "also from another domain");
    let mut short = node(alpha, &["-sname", "short"]);
    short.wait("net_adm:ping('rabbit@mq-a')", "pong");
    assert!(short.reaches("ejabberd@localhost"));
    assert!(!short.reaches("rabbit@kx"), "it has another name");
    assert!(!short.reaches("nobody@kx") && !short.reaches("nobody@localhost") && !short.reaches("x@nowhere"));
    drop((of_own_host, long, addressed, service));
}

/// K10: IPv6 callers and listeners, in all pairs.
#[test]
fn nodes_of_both_address_families_reach_each_other() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let six = ["-proto_dist", "inet6_tcp"];
    let mut two = node(&hosts[1], &["-sname", "two"]);
    let mut two6 = node(&hosts[1], &[&["-sname", "two6"][..], &six].concat());
    let quiet = ["-start_epmd", "false"];
    let _quiet = node(&hosts[1], &[&["-sname", "quiet"][..], &quiet].concat());
    let mut one = node(&hosts[0], &["-sname", "one"]);
    let mut one6 = node(&hosts[0], &[&["-sname", "one6"][..], &six].concat());
    for (caller, called) in
        [(&mut one, "two6@beta"), (&mut one6, "two@beta"), (&mut two, "one6@alpha"), (&mut two6, "one@alpha")]
    {
        caller.wait(&format!("net_adm:ping('{called}')"), "pong");
    }
    assert!(one6.reaches("two6@beta"));
    // Those that start no epmd ask pmd all the same, and are found.
    let mut other = node(&hosts[0], &[&["-sname", "other"][..], &quiet].concat());
    other.wait("net_adm:ping('quiet@beta')", "pong");
    assert!(one6.reaches("quiet@beta"));
}

/// Two hundred nodes on another host, each with an address of its own at which it is dialled, and no listening socket for any
/// of them.
#[test]
fn many_nodes_need_no_listening_sockets() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let mut two = node(&hosts[1], &["-sname", "two"]);
    // Each says its number to whoever has said something.
    two.ask(
        "begin Register = fun(N) ->
             {ok, L} = gen_tcp:listen(0, [binary, {active, false}]),
             {ok, Port} = inet:port(L),
             spawn(fun() ->
                 {ok, C} = gen_tcp:accept(L), {ok, _} = gen_tcp:recv(C, 1), gen_tcp:send(C, <<N:16>>),
                 receive stop -> ok end end),
             {ok, S} = gen_tcp:connect({127,0,0,1}, 4369, [binary, {active, false}]),
             Name = list_to_binary(io_lib:format(\"node~b\", [N])),
             Body = <<120, Port:16, 77, 0, 6:16, 5:16, (byte_size(Name)):16, Name/binary, 0:16>>,
             ok = gen_tcp:send(S, <<(byte_size(Body)):16, Body/binary>>),
             {ok, <<118, 0, _:32>>} = gen_tcp:recv(S, 6), {L, S} end,
           register(holder, spawn(fun() -> put(all, [Register(N) || N <- lists:seq(1, 200)]), receive stop -> ok end end)),
           ok end",
    );
    let mut one = node(&hosts[0], &["-sname", "one"]);
    let all = "[pmd_epmd:address_please(lists:flatten(io_lib:format(\"node~b\", [N])), \"beta\", inet) || N <- lists:seq(1, 200)]";
    one.wait(&format!("lists:usort([element(1, A) || A <- {all}])"), "[ok]");
    assert_eq!(one.ask(&format!("lists:usort([element(3, A) || A <- {all}])")), "[4369]");
    let dialled = one.ask(&format!(
        "begin Dial = fun({{ok, Address, Port, _}}) ->
             {{ok, S}} = gen_tcp:connect(Address, Port, [binary, {{active, false}}]), ok = gen_tcp:send(S, <<0>>), S end,
           put(dialled, [Dial(A) || A <- {all}]),
           [begin {{ok, <<N:16>>}} = gen_tcp:recv(S, 2, 20000), N end || S <- get(dialled)] =:= lists:seq(1, 200) end"
    ));
    assert_eq!(dialled, "true", "each at its own address");
    let of_pmd: Vec<_> =
        listening(&hosts[0]).into_iter().filter(|address| address.starts_with("127.7")).collect();
    assert_eq!(of_pmd, [""; 0]);
}

/// Flags, resolver files and epmd modules of the user's stay in force.
#[test]
fn what_the_user_has_configured_stays() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let _two = node(&hosts[1], &["-sname", "two"]);

    let inetrc = hosts[0].dir().join("mine");
    fs::write(&inetrc, "{host, {10,9,9,9}, [\"special\"]}.\n{lookup, [file, native]}.\n").expect("a file");
    let mut command = erl(&hosts[0]);
    command.env("ERL_INETRC", &inetrc).args(["-mode", "embedded", "-sname", "one"]);
    let mut one = Node::spawn(command);
    one.wait("net_adm:ping('two@beta')", "pong");
    assert_eq!(one.ask("inet:getaddr(\"special\", inet)"), "{ok,{10,9,9,9}}");
    // It was told to load everything, and has.
    one.wait("erlang:module_loaded(dets_server)", "true");

    // A module of the user's own decides alone.
    let source = hosts[0].dir().join("mine.erl");
    fs::write(
        &source,
        "-module(mine). -export([start_link/0, address_please/3]).\n\
         start_link() -> erl_epmd:start_link().\n\
         address_please(_, _, _) -> {error, mine}.\n",
    )
    .expect("a module");
    let mut compile = hosts[0].command(installed("erlc", "erlang-base"));
    compile.arg("-o").arg(hosts[0].dir()).arg(&source);
    succeeded(&run(compile));
    let mut command = erl(&hosts[0]);
    command.arg("-pa").arg(hosts[0].dir()).args(["-epmd_module", "mine", "-sname", "own"]);
    let mut own = Node::spawn(command);
    assert!(!own.reaches("two@beta"));
    assert_eq!(own.ask("pmd_epmd:address_please(\"two\", \"beta\", inet)"), "{error,mine}");

    // What cannot load a module finds hosts by the resolver file alone.
    let mut command = erl_with_resolver(&hosts[0]);
    command.args(["-sname", "three"]);
    let mut three = Node::spawn(command);
    three.wait("net_adm:ping('two@beta')", "pong");
    assert_eq!(three.ask("net_kernel:epmd_module()"), "erl_epmd");
}

/// A node that has registered a whole question as its name does not get the connections of others.
#[test]
fn a_node_cannot_answer_for_another() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    let mut one = node(&hosts[0], &["-sname", "one"]);
    let register = "begin {ok, S} = gen_tcp:connect({127,0,0,1}, 4369, [binary, {active, false}]),
        Name = <<\"two@gamma@inet\">>, Extra = <<\"pmd\", 127, 0, 0, 1>>,
        Body = <<120, 9999:16, 77, 0, 6:16, 5:16, (byte_size(Name)):16, Name/binary, (byte_size(Extra)):16, Extra/binary>>,
        ok = gen_tcp:send(S, <<(byte_size(Body)):16, Body/binary>>), {ok, <<118, 0, _:32>>} = gen_tcp:recv(S, 6), put(held, S), ok end";
    assert_eq!(one.ask(register), "ok");
    assert_eq!(one.ask("pmd_epmd:address_please(\"two\", \"gamma\", inet)"), "{error,nxdomain}");
    assert_eq!(one.ask("pmd_epmd:address_please(\"two\", \"beta\", inet)"), "{error,noport}");
}

/// The compiled module in the binary is the one of the source.
#[test]
fn the_module_in_the_binary_is_compiled_from_its_source() {
    // Compilers of other releases make other files.
    let release = "io:format(\"~s\", [erlang:system_info(otp_release)]), halt().";
    let mut erl = std::process::Command::new(installed("erl", "erlang-base"));
    erl.args(["-noshell", "-eval", release]);
    let release = succeeded(&run(erl));
    if release != "25" {
        eprintln!("not compared: this is OTP {release}");
        return;
    }
    let folder = tempfile::TempDir::new().expect("a folder");
    let root = fixture("../..");
    let mut compile = std::process::Command::new(root.join("scripts/build-epmd-module"));
    compile.arg(folder.path());
    succeeded(&run(compile));
    let fresh = fs::read(folder.path().join("pmd_epmd.beam")).expect("a module");
    let kept = fs::read(root.join("src/tunnel/pmd_epmd.beam")).expect("a module");
    assert!(fresh == kept, "run scripts/build-epmd-module");
}
