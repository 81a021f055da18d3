//! A name belongs to one node at a time, and is free as soon as that node is gone.

use crate::harness::netns::Lan;
use crate::harness::program::run;
use crate::support::mapper::{Daemon, Mapper, wait_for_names};
use crate::support::node::{Node, erl};
use crate::support::{hosts, told, wire};

#[test]
fn a_name_in_use_is_refused_with_the_stock_message() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut holder = Node::erl(&alpha, &["-sname", "one"]);

    let mut second = erl(&alpha);
    second.args(["-sname", "one", "-eval", "halt(0)."]);
    let (stdout, stderr, code) = told(&run(second));
    let message = "Protocol 'inet_tcp': the name one@alpha seems to be in use by another Erlang node";
    assert!((stdout + &stderr).contains(message), "unexpected message: {stderr}");
    assert_eq!(code, Some(1));

    assert_eq!(holder.ask("node()"), "one@alpha", "the first node has lost its name");
    wait_for_names(&alpha, &["one"]);
    let elsewhere = Node::erl(&beta, &["-sname", "one"]);
    wait_for_names(&beta, &["one"]);
    drop(elsewhere);
}

/// A restarted node registers before its old connection is found closed, unless the daemon checks before it refuses.
#[test]
fn a_name_is_free_as_soon_as_its_connection_is_closed() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let _daemon = Daemon::start(&host);
    let mut last = wire::register(&host, "worker", 4000).expect("the first registration");
    for round in 1..=50_u16 {
        if round % 10 == 0 {
            assert!(
                wire::register(&host, "worker", 1).is_none(),
                "round {round}: the name was registered twice"
            );
        }
        let creation = last.creation;
        if round % 2 == 0 {
            drop(last);
        } else {
            last.reset();
        }
        let mut next = wire::register(&host, "worker", 4000 + round);
        while next.is_none() && Mapper::under_test() == Mapper::Stock {
            // Stock epmd can see the restarted node before the end of the old one; pmd must not.
            next = wire::register(&host, "worker", 4000 + round);
        }
        let Some(next) = next else { panic!("round {round}: the restarted node was refused") };
        assert_ne!(next.creation, creation, "round {round}: a restarted node needs a new creation");
        last = next;
    }
}

#[test]
fn a_killed_node_restarts_under_its_name_with_a_new_creation() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut observer = Node::erl(&beta, &["-sname", "observer"]);
    let mut worker = Node::erl(&alpha, &["-sname", "worker"]);
    let mut creations = vec![worker.creation()];
    for _ in 0..5 {
        assert!(observer.reaches("worker@alpha"));
        observer.ask("put(old, rpc:call(worker@alpha, erlang, whereis, [init]))");
        worker.kill();
        worker = Node::erl(&alpha, &["-sname", "worker"]);
        let creation = worker.creation();
        assert!(!creations.contains(&creation), "creation {creation} again, after {creations:?}");
        creations.push(creation);
        observer.wait("net_adm:ping(worker@alpha)", "pong");
        // Same name, same pid within the node: only the creation tells the two processes apart.
        assert_eq!(observer.ask("get(old) =:= rpc:call(worker@alpha, erlang, whereis, [init])"), "false");
    }
}
