//! The daemon dies while nodes run, and comes back.

use crate::harness::netns::Lan;
use crate::harness::wait_until;
use crate::support::hosts;
use crate::support::mapper::{Daemon, assert_no_stock_epmd, names};
use crate::support::node::Node;

#[test]
fn nodes_return_to_a_daemon_that_was_killed_and_restarted() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    let mut daemon = Daemon::start(&alpha);
    let _other = Daemon::start(&beta);
    let mut one = Node::erl(&alpha, &["-sname", "one"]);
    let mut two = Node::erl(&alpha, &["-sname", "two"]);
    let mut far = Node::erl(&beta, &["-sname", "far"]);
    assert!(far.reaches("one@alpha"));
    let before = names(&alpha);
    let identities = [(one.pid(), one.creation()), (two.pid(), two.creation())];

    daemon.program.kill();
    assert!(one.reaches("far@beta"), "connections do not need the daemon");
    assert_eq!(far.ask("net_adm:names(alpha)"), "{error,address}");
    let daemon = Daemon::start(&alpha);

    wait_until("the nodes to register again", || names(&alpha) == before);
    assert_eq!(identities, [(one.pid(), one.creation()), (two.pid(), two.creation())]);
    let mut fresh = Node::erl(&beta, &["-sname", "fresh"]);
    assert!(fresh.reaches("one@alpha"));
    assert!(fresh.reaches("two@alpha"));
    let mut late = Node::erl(&alpha, &["-sname", "late"]);
    assert!(late.reaches("two@alpha"));
    assert_no_stock_epmd(&alpha);
    drop(daemon);
}

/// Nodes keep their names across several crashes of the daemon in a row, and a name given up meanwhile does not come
/// back.
#[test]
fn a_node_that_ended_without_a_daemon_is_forgotten() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let mut daemon = Daemon::start(&host);
    let _stays = Node::erl(&host, &["-sname", "stays"]);
    let leaves = Node::erl(&host, &["-sname", "leaves"]);
    daemon.program.kill();
    leaves.kill();
    daemon = Daemon::start(&host);
    wait_until("the survivor to register again", || names(&host).contains_key("stays"));
    assert_eq!(names(&host).len(), 1);
    let mut leaves = Node::erl(&host, &["-sname", "leaves"]);
    assert!(leaves.reaches("stays@alpha"));
    drop(daemon);
}
