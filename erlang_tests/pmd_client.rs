//! The Erlang and Elixir client of pmd, and its epmd module, in real nodes.
//!
//! The client's own tests cover responses of every kind with a daemon of canned responses; they run here, too.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{run, run_within};
use crate::harness::wait_until;
use crate::support::mapper::{Daemon, Mapper, assert_no_stock_epmd, names, wait_for_names};
use crate::support::node::{Node, elixir, erl};
use crate::support::{hosts, installed, succeeded};

/// The client's own tests wait for timeouts of the client, and run slowly beside other tests.
const SUITE: Duration = Duration::from_secs(240);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("erlang").join(name)
}

/// Compiles the client, and optionally its tests; returns the folder of the result.
fn compiled(host: &Host, parts: &[&str]) -> String {
    let out = host.dir().join("ebin");
    fs::create_dir_all(&out).expect("a folder for the compiled client");
    let mut erlc: Command = host.command(installed("erlc", "erlang-base"));
    erlc.args(["-Wall", "-Werror", "+debug_info", "-o"]).arg(&out);
    for part in parts {
        let sources = fs::read_dir(folder("pmd").join(part)).expect("the client's sources");
        erlc.args(
            sources
                .map(|entry| entry.expect("a file").path())
                .filter(|file| file.extension().is_some_and(|extension| extension == "erl")),
        );
    }
    succeeded(&run(erlc));
    out.to_str().expect("a path in UTF-8").to_owned()
}

/// Daemons of one cluster, also when the run tests stock epmd, which has no clusters.
fn cluster(hosts: [&Host; 2]) -> [Daemon; 2] {
    let daemons = hosts.map(|host| {
        fs::create_dir_all(host.pmd_home()).expect("a home for pmd");
        let cookie = host.pmd_home().join("cookie");
        fs::write(&cookie, "0123456789abcdef".repeat(4)).expect("writing the cookie");
        fs::set_permissions(&cookie, Permissions::from_mode(0o600)).expect("the cookie's mode");
        Daemon::start_as(Mapper::Pmd, host)
    });
    join(hosts[0], hosts[1]);
    daemons
}

fn join(host: &Host, other: &Host) {
    let body = format!("{{\"addresses\":[\"{}:4369\"]}}", other.ip);
    let mut socket = UnixStream::connect(host.pmd_home().join("pmd-4369.sock")).expect("the control socket");
    let length = body.len();
    write!(socket, "POST /v1/join HTTP/1.0\r\nhost: pmd\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("asking to join");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the answer to join");
    assert!(answer.starts_with("HTTP/1.0 200"), "not joined: {answer}");
}

/// `erl` with the client, and optionally with its module in place of `erl_epmd`.
fn node(host: &Host, ebin: &str, args: &[&str]) -> Node {
    Node::erl(host, &[&["-pa", ebin], args].concat())
}

const EPMD_MODULE: [&str; 2] = ["-epmd_module", "pmd_epmd"];

#[test]
fn the_clients_own_tests_pass() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let ebin = compiled(&host, &["src", "test"]);
    let mut tests = erl(&host);
    tests.args(["-pa", &ebin, "-eval"]);
    tests.arg(format!("halt(case eunit:test({{dir, \"{ebin}\"}}, [verbose]) of ok -> 0; error -> 1 end)."));
    let output = succeeded(&run_within(SUITE, tests));
    assert!(output.contains("All") && output.contains("tests passed"), "no tests were run: {output}");
}

/// The package builds as it is, also with mix alone, which has no rebar3; `make erlang-client` tries rebar3.
#[test]
fn mix_builds_the_client() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let copy = host.dir().join("pmd_client");
    fs::create_dir_all(copy.join("src")).expect("a folder");
    let sources = fs::read_dir(folder("pmd").join("src")).expect("the client's sources");
    let sources = sources.map(|entry| PathBuf::from("src").join(entry.expect("a file").file_name()));
    for file in sources.chain([PathBuf::from("mix.exs"), PathBuf::from("rebar.config")]) {
        fs::copy(folder("pmd").join(&file), copy.join(&file)).expect("a copy");
    }
    let mut mix = host.command(installed("mix", "elixir"));
    mix.args(["compile", "--warnings-as-errors"]).current_dir(&copy).env("LC_ALL", "C.UTF-8");
    succeeded(&run(mix));
    let built = fs::read_to_string(copy.join("_build/dev/lib/pmd/ebin/pmd.app")).expect("an application");
    let source = fs::read_to_string(copy.join("src/pmd.app.src")).expect("the application's source");
    for key in ["vsn", "description", "applications"] {
        let value = |text: &str| {
            let after = text.split_once(&format!("{{{key},")).expect("the key").1;
            after.split_once('}').expect("its end").0.replace(char::is_whitespace, "")
        };
        assert_eq!(value(&built), value(&source), "{key}");
    }
}

#[test]
fn nodes_with_the_epmd_module_connect_two_hosts() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let ebin = compiled(&alpha, &["src"]);
    let mut daemons = cluster([&alpha, &beta]);
    let mut one = node(&alpha, &ebin, &[&EPMD_MODULE[..], &["-sname", "one"]].concat());
    let mut two = node(&beta, &ebin, &[&EPMD_MODULE[..], &["-sname", "two"]].concat());
    let mut stock = Node::erl(&beta, &["-sname", "stock"]);
    assert_eq!(one.ask("net_kernel:epmd_module()"), "pmd_epmd");
    wait_for_names(&alpha, &["one"]);
    wait_for_names(&beta, &["stock", "two"]);

    assert!(one.reaches("two@beta"));
    assert!(two.reaches("one@alpha"));
    assert!(one.reaches("stock@beta") && stock.reaches("one@alpha"));
    assert!(!one.reaches("nobody@beta") && !one.reaches("one@nowhere"));
    let port = names(&beta)["stock"];
    assert!(two.ask("net_adm:names()").contains(&format!("{{\"stock\",{port}}}")));

    // OTP's own client made the registration, and renews it as always.
    daemons[1].program.signal(Signal::TERM);
    daemons[1].program.wait(Duration::from_secs(20));
    daemons[1] = Daemon::start_as(Mapper::Pmd, &beta);
    wait_for_names(&beta, &["stock", "two"]);
    for host in [&alpha, &beta] {
        assert_no_stock_epmd(host);
    }
}

/// Containers that find each other through pmd alone.
#[test]
fn hosts_without_a_resolver_are_found_where_their_daemons_are() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    for host in [&alpha, &beta] {
        let oneself = format!("127.0.0.1 localhost\n::1 localhost\n{} {}\n", host.ip, host.name);
        fs::write(host.dir().join("hosts"), oneself).expect("writing the hosts file");
    }
    let ebin = compiled(&alpha, &["src"]);
    let _daemons = cluster([&alpha, &beta]);
    let mut stock = Node::erl(&alpha, &["-sname", "stock"]);
    let mut one = node(&alpha, &ebin, &[&EPMD_MODULE[..], &["-sname", "one"]].concat());
    let mut two = node(&beta, &ebin, &[&EPMD_MODULE[..], &["-sname", "two"]].concat());
    assert!(!stock.reaches("two@beta"), "the host can be resolved: this test proves nothing");
    one.wait("net_adm:ping(two@beta)", "pong");
    two.wait("net_adm:ping(stock@alpha)", "pong");
    assert!(!one.reaches("nobody@beta"));
}

/// Without pmd, nothing changes and nothing is logged.
#[test]
fn the_epmd_module_works_without_pmd() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let ebin = compiled(&alpha, &["src"]);
    let _daemons = [&alpha, &beta].map(|host| Daemon::start_as(Mapper::Stock, host));
    let mut one = erl(&alpha);
    one.args(["-pa", &ebin]).args(EPMD_MODULE).args(["-sname", "one", "-eval"]);
    one.arg("io:format(\"~p~n\", [net_adm:ping(two@beta)]), halt().");
    let _two = node(&beta, &ebin, &[&EPMD_MODULE[..], &["-sname", "two"]].concat());
    let output = run(one);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(succeeded(&output), "pong\n");
}

#[test]
fn the_client_sees_the_cluster() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let ebin = compiled(&alpha, &["src"]);
    let _daemons = cluster([&alpha, &beta]);
    let mut here = node(&alpha, &ebin, &["-sname", "here"]);
    let mut there = node(&beta, &ebin, &["-sname", "there"]);

    let port = names(&beta)["there"];
    let found = format!("{{<<\"there\">>,<<\"beta\">>,{port}}}");
    here.wait(
        "case pmd:lookup('there@beta', #{kind => name}) of
            {ok, [#{name := N, host := H, port := P}]} -> {N, H, P}; Other -> Other end",
        &found,
    );
    assert_eq!(here.ask("pmd:lookup(\"nobody\")"), "{error,not_found}");
    assert_eq!(here.ask("pmd:lookup(\"there@gamma\")"), "{error,not_found}");
    let all = "[{<<\"here\">>,<<\"alpha\">>},{<<\"there\">>,<<\"beta\">>}]";
    here.wait("begin {ok, L} = pmd:names(), [{N, H} || #{name := N, host := H} <- L] end", all);
    here.wait("begin {ok, L} = pmd:names(#{host => beta}), [N || #{name := N} <- L] end", "[<<\"there\">>]");
    here.wait(
        "begin {ok, L} = pmd:nodes(), [{H, O, S} || #{host := H, oneself := O, state := S} <- L] end",
        "[{<<\"alpha\">>,true,alive},{<<\"beta\">>,false,alive}]",
    );

    // A user who may not use the control socket looks up, too, and registers nothing.
    for path in [alpha.dir().to_owned(), PathBuf::from(&ebin)] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("ours");
    }
    let mut stranger = alpha.command("setpriv");
    stranger.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]);
    stranger.arg(installed("erl", "erlang-base")).args(["-noshell", "-pa", &ebin, "-eval"]);
    stranger.env_remove("PMD_HOME").env("HOME", "/nonexistent").current_dir("/");
    stranger.arg(
        "{ok, [#{host := H}]} = pmd:lookup('there@beta'), {ok, [_, _]} = pmd:nodes(),
         io:format(\"~s ~p~n\", [H, element(1, pmd:register(x, 1))]), halt().",
    );
    assert_eq!(succeeded(&run(stranger)), "beta error\n");

    // A service lives as long as its owner, and is visible on the other host.
    let service = "case pmd:lookup(web) of
        {ok, [#{kind := K, host := H, port := P, metadata := M}]} -> {K, H, P, M}; Other -> Other end";
    here.ask("begin {ok, Handle} = pmd:register(\"web\", 8080, #{metadata => #{path => <<\"/ä\"/utf8>>}}), put(web, Handle) end");
    there.wait(service, "{service,<<\"alpha\">>,8080,#{<<\"path\">> => <<\"/ä\"/utf8>>}}");
    assert!(here.ask("pmd:register(web, 8081)").starts_with("{error,{conflict,<<"));
    assert_eq!(here.ask("pmd:unregister(get(web))"), "ok");
    there.wait(service, "{error,not_found}");
    here.ask("put(owner, spawn(fun() -> {ok, _} = pmd:register(web, 8082), receive stop -> ok end end))");
    there.wait(service, "{service,<<\"alpha\">>,8082,#{}}");
    here.ask("exit(get(owner), kill)");
    there.wait(service, "{error,not_found}");
}

/// The events that have arrived, in short form.
const ARRIVED: &str = "begin
    Take = fun Take(Before) -> receive {pmd_event, _, Event} -> Take([Event | Before]) after 0 -> Before end end,
    put(events, Take(case get(events) of undefined -> []; Before -> Before end)),
    [case Event of
        #{event := gap, reason := Why} -> {gap, Why};
        #{event := What, name := Name, host := Where} -> {What, Name, Where};
        #{event := What} -> What
     end || Event <- lists:reverse(get(events))] end";

#[test]
fn events_and_services_survive_a_restart_of_the_daemon() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let ebin = compiled(&alpha, &["src"]);
    let [mut daemon, _other] = cluster([&alpha, &beta]);
    let mut node = node(&alpha, &ebin, &[]);
    node.ask("begin {ok, S} = pmd:subscribe([name_up, name_down, service_up, service_down]), put(subscription, S) end");
    node.ask("begin {ok, _} = pmd:register(web, 8080) end");
    let there = Node::erl(&beta, &["-sname", "there"]);
    let up = "connected,{service_up,<<\"web\">>,<<\"alpha\">>},{name_up,<<\"there\">>,<<\"beta\">>}";
    node.wait(ARRIVED, &format!("[{up}]"));
    there.kill();
    let down = format!("{up},{{name_down,<<\"there\">>,<<\"beta\">>}}");
    node.wait(ARRIVED, &format!("[{down}]"));

    daemon.program.signal(Signal::TERM);
    daemon.program.wait(Duration::from_secs(20));
    wait_until("the end of the stream to be told", || node.ask(ARRIVED).ends_with(",disconnected]"));
    let _daemon = Daemon::start_as(Mapper::Pmd, &alpha);
    let again = "disconnected,connected,{gap,restarted},{service_up,<<\"web\">>,<<\"alpha\">>}]";
    let mut last = String::new();
    wait_until("the events of the new daemon", || {
        let told = node.ask(ARRIVED);
        if told != last {
            eprintln!("{told}");
        }
        last = told;
        last.ends_with(again)
    });
    assert_eq!(node.ask("begin {ok, [#{port := P}]} = pmd:lookup(web), P end"), "8080");
    assert_eq!(node.ask("pmd:unsubscribe(get(subscription))"), "ok");
}

#[test]
fn the_libcluster_strategy_connects_nodes() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let ebin = compiled(&alpha, &["src"]);
    let _daemons = cluster([&alpha, &beta]);
    let mut other = Node::erl(&beta, &["-sname", "test"]);
    let mut tests = elixir(&alpha);
    tests.args(["--sname", "test", "-pa", &ebin]).env("PMD_TEST_LIVE", "1");
    for file in ["test_helper.exs", "node_names_test.exs", "strategy_test.exs", "live_test.exs"] {
        tests.arg("-r").arg(folder("libcluster_pmd").join("test").join(file));
    }
    let output = succeeded(&run_within(SUITE, tests));
    // Since Elixir 1.20, the summary lists only what occurred.
    let all_passed = output.contains(" 0 failures") || output.contains("Result: 12 passed\n");
    assert!(all_passed, "no tests were run: {output}");
    assert!(!output.contains("excluded"), "not all of the tests were run: {output}");
    assert!(other.ask("node()").starts_with("test@"));
}
