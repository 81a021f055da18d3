//! Nodes started in other ways than a plain `erl -sname`.

use std::process::Command;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::wait_until;
use crate::support::mapper::{self, Daemon, assert_no_stock_epmd, epmd, wait_for_names};
use crate::support::node::{Node, erl, require_application};
use crate::support::{fixture, hosts, succeeded, told, wire};

#[test]
fn peer_nodes_register_and_connect() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut origin = Node::erl(&alpha, &["-sname", "origin"]);
    let mut other = Node::erl(&beta, &["-sname", "other"]);
    let start = |name: &str| {
        format!(
            "begin
                {{ok, Peer, Node}} = peer:start(#{{name => {name}, args => [\"+S\", \"1:1\"]}}),
                put({name}, Peer),
                {{Node, net_adm:ping(Node)}}
            end"
        )
    };
    assert_eq!(origin.ask(&start("first")), "{first@alpha,pong}");
    assert_eq!(origin.ask(&start("second")), "{second@alpha,pong}");
    wait_for_names(&alpha, &["origin", "first", "second"]);
    assert_eq!(origin.ask("rpc:call(first@alpha, net_adm, ping, [second@alpha])"), "pong");
    assert!(other.reaches("first@alpha"));
    assert_eq!(origin.ask("peer:stop(get(first))"), "ok");
    wait_for_names(&alpha, &["origin", "second"]);
    assert_eq!(origin.ask(&start("first")), "{first@alpha,pong}");
    origin.ask("[peer:stop(get(Name)) || Name <- [first, second]]");
    wait_for_names(&alpha, &["origin"]);
}

#[test]
fn hidden_nodes_are_reached_but_not_listed() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut open = Node::erl(&alpha, &["-sname", "open"]);
    let mut hidden = Node::erl(&beta, &["-sname", "hidden", "-hidden"]);
    wait_for_names(&beta, &["hidden"]);
    assert!(open.reaches("hidden@beta"));
    assert_eq!(open.ask("{nodes(), nodes(hidden)}"), "{[],[hidden@beta]}");
    assert!(hidden.reaches("open@alpha"));
    assert_eq!(hidden.ask("nodes(connected)"), "[open@alpha]");
}

#[test]
fn nodes_register_and_connect_over_ipv6() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let ipv6 = ["-proto_dist", "inet6_tcp"];
    let mut one = Node::erl(&alpha, &[["-sname", "one"], ipv6].concat());
    let mut two = Node::erl(&beta, &[["-sname", "two"], ipv6].concat());
    for (node, other, address) in
        [(&mut one, "two@beta", "64887,0,0,0,0,0,0,2"), (&mut two, "one@alpha", "64887,0,0,0,0,0,0,1")]
    {
        assert!(node.reaches(other));
        let peer = node.ask(
            "begin
                {ok, [{_, Info}]} = net_kernel:nodes_info(),
                {address, {net_address, {Address, _}, _, tcp, inet6}} = lists:keyfind(address, 1, Info),
                Address
            end",
        );
        assert_eq!(peer, format!("{{{address}}}"), "the connection is not an IPv6 one");
    }
    // One daemon serves nodes of both address families.
    let mut old = Node::erl(&alpha, &["-sname", "old"]);
    wait_for_names(&alpha, &["one", "old"]);
    assert_eq!(old.ask("length(element(2, net_adm:names()))"), "2");
}

/// Writes certificates for TLS distribution to the homes of two hosts.
pub(crate) fn issue_certificates(hosts: [&Host; 2]) {
    let [alpha, _] = hosts;
    require_application(alpha, "ssl", "erlang-ssl");
    require_application(alpha, "public_key", "erlang-public-key");
    issue_certificates_with(erl(alpha), hosts);
}

/// Like [`issue_certificates`], with this command for `erl`.
pub(crate) fn issue_certificates_with(mut issuer: Command, [alpha, beta]: [&Host; 2]) {
    let directories = [alpha.dir().display().to_string(), beta.dir().display().to_string()];
    let script = fixture("certificates.erl");
    issuer.args(["-eval", &format!("ok = file:eval(\"{}\"), halt(0).", script.display()), "-extra"]);
    issuer.args(["alpha", &directories[0], "beta", &directories[1]]);
    succeeded(&run(issuer));
}

/// The flags of a node that uses the certificates in the host's home.
pub(crate) fn tls(host: &Host) -> [String; 4] {
    let options = host.dir().join("tls.options");
    ["-proto_dist", "inet_tls", "-ssl_dist_optfile", options.to_str().unwrap()].map(str::to_owned)
}

#[test]
fn distribution_over_tls_connects_two_hosts() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    issue_certificates([&alpha, &beta]);
    let start = |host: &Host, name: &str| {
        let mut command = erl(host);
        command.args(["-sname", name]).args(tls(host));
        Node::spawn(command)
    };
    let mut one = start(&alpha, "one");
    let mut two = start(&beta, "two");
    assert!(one.reaches("two@beta"));
    assert!(two.reaches("one@alpha"));
    let protocol = one.ask(
        "begin
            {ok, [{_, Info}]} = net_kernel:nodes_info(),
            {address, {net_address, _, _, Protocol, _}} = lists:keyfind(address, 1, Info),
            Protocol
        end",
    );
    assert_eq!(protocol, "tls");

    let mut plain = Node::erl(&alpha, &["-sname", "plain"]);
    wait_for_names(&alpha, &["one", "plain"]);
    assert!(!plain.reaches("two@beta"), "a node without TLS connected");
}

/// What nodes before OTP 23 request: version 5, which implies a creation between 1 and 3.
#[test]
fn nodes_of_the_old_protocol_version_get_a_small_creation() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut new = Node::erl(&beta, &["-sname", "new"]);
    let mut creations = Vec::new();
    for _ in 0..3 {
        let mut command = erl(&alpha);
        command.args(["-sname", "old"]).env("ERL_EPMD_DIST_HIGH", "5").env("ERL_EPMD_DIST_LOW", "5");
        let mut old = Node::spawn(command);
        creations.push(old.creation());
        assert_eq!(new.ask("element(3, erl_epmd:port_please(\"old\", alpha))"), "5");
        new.wait("net_adm:ping(old@alpha)", "pong");
        old.kill();
        new.wait("nodes()", "[]");
    }
    creations.sort_unstable();
    // A newer node replaces such a creation by the smallest that is not small.
    let expected = if new.otp_release() <= 25 { [1, 2, 3] } else { [4, 4, 4] };
    assert_eq!(creations, expected, "three starts in a row use each of the three creations");
}

#[test]
fn a_node_told_not_to_start_a_daemon_uses_the_one_that_runs() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let quiet = ["-sname", "one", "-start_epmd", "false"];

    let mut early = erl(&host);
    early.args(quiet).args(["-eval", "halt(0)."]);
    let (stdout, stderr, code) = told(&run(early));
    // OTP 25 divides the message between both streams.
    let said = stderr + stdout.trim_end();
    assert_eq!((said.as_str(), code), ("Protocol 'inet_tcp': register/listen error: econnrefused", Some(1)));
    wait_until("an empty host: no daemon was started", || host.netns.processes().is_empty());

    let _daemon = Daemon::start(&host);
    let mut one = Node::erl(&host, &quiet);
    wait_for_names(&host, &["one"]);
    assert_eq!(one.ask("node()"), "one@alpha");
    assert_no_stock_epmd(&host);
}

#[test]
fn a_daemon_on_another_port_serves_nodes_that_are_told() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let mut daemon = epmd(&host);
    daemon.args(["-daemon", "-port", "5001"]);
    succeeded(&run(daemon));
    let start = |name: &str| {
        let mut command = erl(&host);
        command.args(["-sname", name, "-start_epmd", "false"]).env("ERL_EPMD_PORT", "5001");
        Node::spawn(command)
    };
    // The launcher may return before the daemon listens.
    let names_there = || {
        let mut command = epmd(&host);
        command.args(["-port", "5001", "-names"]);
        told(&run(command))
    };
    wait_until("a daemon on port 5001", || names_there().2 == Some(0));
    let mut one = start("one");
    let _two = start("two");
    assert!(one.reaches("two@alpha"));
    let (text, _, _) = names_there();
    assert!(text.starts_with("epmd: up and running on port 5001 with data:\nname two at port "), "{text}");
    assert!(wire::names_at(&host, [127, 0, 0, 1].into()).is_none(), "a daemon listens on 4369");
}

/// Two kinds of nodes that reach others but cannot be reached: one that only dials out, and one that gets its name from
/// the node it dials.
#[test]
fn nodes_that_do_not_listen_are_not_registered() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut server = Node::erl(&beta, &["-sname", "server"]);
    let mut silent = Node::erl(&alpha, &["-sname", "silent", "-dist_listen", "false"]);
    assert!(silent.reaches("server@beta"));
    assert_eq!(server.ask("nodes(hidden)"), "[silent@alpha]");
    let mut nameless = Node::erl(&alpha, &["-sname", "undefined"]);
    assert_eq!(nameless.ask("net_kernel:connect_node(server@beta)"), "true");
    assert!(nameless.reaches("server@beta"));
    assert_eq!(nameless.ask("lists:suffix(\"@alpha\", atom_to_list(node()))"), "true");
    assert!(mapper::names(&alpha).is_empty());
    assert_no_stock_epmd(&alpha);
}
