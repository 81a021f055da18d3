//! The functions of OTP's own epmd client, called inside a node.

use crate::harness::netns::Lan;
use crate::support::hosts;
use crate::support::mapper::{Daemon, names, wait_for_names};
use crate::support::node::Node;

#[test]
fn erl_epmd_lookups_are_answered() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut one = Node::erl(&alpha, &["-sname", "one"]);
    let _two = Node::erl(&beta, &["-sname", "two"]);
    let port = names(&beta)["two"];

    let found = format!("{{port,{port},6}}");
    assert_eq!(one.ask("erl_epmd:port_please(\"two\", beta)"), found);
    assert_eq!(one.ask("erl_epmd:port_please(\"two\", \"beta\", 5000)"), found);
    assert_eq!(one.ask("erl_epmd:port_please(\"two\", {10,77,0,2})"), found);
    assert_eq!(one.ask("erl_epmd:port_please(\"two\", {16#fd77,0,0,0,0,0,0,2})"), found);
    assert_eq!(one.ask("erl_epmd:port_please(\"nobody\", beta)"), "noport");
    assert_eq!(one.ask("erl_epmd:address_please(\"two\", beta, inet)"), "{ok,{10,77,0,2}}");
    assert_eq!(one.ask("erl_epmd:listen_port_please(\"one\", alpha)"), "{ok,0}");

    assert_eq!(one.ask("erl_epmd:names(beta)"), format!("{{ok,[{{\"two\",{port}}}]}}"));
    assert_eq!(one.ask("erl_epmd:names({10,77,0,2})"), format!("{{ok,[{{\"two\",{port}}}]}}"));
    assert_eq!(one.ask("erl_epmd:names() =:= erl_epmd:names({127,0,0,1})"), "true");
    assert_eq!(one.ask("erl_epmd:names(nowhere)"), "{error,nxdomain}");
}

#[test]
fn a_host_without_a_daemon_is_an_error_of_its_own() {
    let lan = Lan::new();
    let [alpha, _beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemon = Daemon::start(&alpha);
    let mut one = Node::erl(&alpha, &["-sname", "one"]);
    assert_eq!(one.ask("net_adm:names(beta)"), "{error,address}");
    assert_eq!(one.ask("erl_epmd:port_please(\"two\", beta)"), "noport");
    assert!(!one.reaches("two@beta"));
}

#[test]
fn one_vm_registers_several_names() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut node = Node::erl(&host, &["-sname", "one"]);
    let client = |name: &str, port: u16| {
        format!(
            "begin
                {{ok, Client}} = gen_server:start(erl_epmd, [], []),
                Reply = gen_server:call(Client, {{register, \"{name}\", {port}, inet}}),
                put({{client, \"{name}\"}}, Client),
                element(1, Reply) =:= ok orelse Reply
            end"
        )
    };
    assert_eq!(node.ask("erl_epmd:register_node(\"again\", 4000, inet_tcp)"), "{error,already_registered}");
    assert_eq!(node.ask(&client("second", 4001)), "true");
    assert_eq!(node.ask(&client("third", 4002)), "true");
    assert_eq!(node.ask(&client("second", 4003)), "{error,duplicate_name}");
    assert_eq!(node.ask(&client("one", 4004)), "{error,duplicate_name}");
    wait_for_names(&host, &["one", "second", "third"]);
    assert_eq!(node.ask("erl_epmd:port_please(\"second\", alpha)"), "{port,4001,6}");
    assert_eq!(names(&host)["third"], 4002);

    node.ask("exit(get({client, \"third\"}), kill)");
    wait_for_names(&host, &["one", "second"]);
}

#[test]
fn distribution_started_and_stopped_at_run_time_registers_and_leaves() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut node = Node::erl(&host, &[]);
    for name in ["early", "late"] {
        let started = node.ask(&format!("element(1, net_kernel:start([{name}, shortnames]))"));
        assert_eq!(started, "ok");
        wait_for_names(&host, &[name]);
        assert_eq!(node.ask("node()"), format!("{name}@alpha"));
        assert_eq!(node.ask("net_kernel:stop()"), "ok");
        wait_for_names(&host, &[]);
    }
}
