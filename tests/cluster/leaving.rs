//! Daemons that stop or leave deliberately and announce it.

use std::io::Write;
use std::os::unix::net::UnixStream;

use pmd_epmd::kernel::sockets;

use crate::harness::wait_until;
use crate::machine::PORT;
use crate::world::World;

#[test]
fn a_terminated_daemon_announces_that_it_leaves() {
    let mut world = World::joined(3);
    let node = world.register(2, "alice", 41_001);
    world.wait_for_names(&world.all(), [&node]);
    let watches = [world.watch(0), world.watch(1)];
    world[2].terminate();
    for watch in &watches {
        watch.wait_for("node_left", "h3");
        assert_eq!(watch.reasons("node_left", "h3"), [Some("left".to_owned())]);
        watch.wait_for("name_down", "alice");
    }
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], []);
    watches.iter().for_each(|watch| watch.never("node_down", "h3"));
}

#[test]
fn pmd_stop_announces_that_the_daemon_leaves() {
    let mut world = World::joined(2);
    let watch = world.watch(0);
    world.run(1, &["stop"]).ended_with(0);
    watch.wait_for("node_left", "h2");
    world.wait_until_agreed(&[0]);
    watch.never("node_down", "h2");
    assert!(world[1].daemon().wait(crate::world::PATIENCE).success());
}

#[test]
fn a_daemon_that_leaves_keeps_running_and_can_rejoin() {
    let world = World::joined(3);
    let nodes = [0, 1, 2].map(|host| world.register(host, "node", 41_001));
    world.wait_for_names(&world.all(), &nodes);
    let watch = world.watch(0);
    world.run(2, &["leave"]).ended_with(0);
    watch.wait_for("node_left", "h3");
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], &nodes[..2]);
    // It still answers for its own nodes and has no other members.
    world.wait_for_names(&[2], &nodes[2..]);
    assert!(nodes[2].is_open());
    world.wait_on(&[2], "no other members", |host| {
        world.status(host).is_some_and(|status| status.left && status.members == 1 && status.links == 0)
    });
    // No member may bring it back.
    let refused = world.run(0, &["join", "h3"]);
    assert_eq!(refused.code, 5, "{refused:#?}");

    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    watch.never("node_down", "h3");
}

#[test]
fn a_cluster_that_everybody_has_left_can_be_joined_again() {
    let world = World::joined(3);
    for host in world.all() {
        world.run(host, &["leave"]).ended_with(0);
    }
    // The first to return finds nobody, but is a member again.
    assert_eq!(world.run(0, &["join", "h2"]).code, 5);
    assert!(world.status(0).is_some_and(|status| !status.left));
    world.run(1, &["join", "h1"]).ended_with(0);
    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
}

#[test]
fn a_daemon_can_refuse_to_be_told_to_leave() {
    let mut world = World::new(3);
    world[2].configure("leave_on_request = false\n");
    world.start_all();
    world.run(1, &["join", "h1"]).ended_with(0);
    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    let said = world.run(0, &["leave", "h3"]);
    assert_eq!(said.code, 6, "{said:#?}");
    let log = world[2].log();
    let ignored = log.lines().find(|line| line.contains("ignored a member's request to leave"));
    assert!(ignored.is_some_and(|line| line.contains("h1")), "{log}");
    world.wait_until_agreed(&world.all());
}

#[test]
fn a_member_told_to_leave_stays_away_until_it_joins() {
    // With more than six hosts, not every pair has a link.
    let mut world = World::new(8);
    // With seeds, all hosts would otherwise rejoin on their own.
    for host in 0..8 {
        world[host].configure("join = [\"10.77.0.1\", \"10.77.0.2\"]\n");
    }
    world.start_all();
    world.wait_until_agreed(&world.all());
    let nodes = [0, 7].map(|host| world.register(host, "node", 41_001));
    world.wait_for_names(&world.all(), &nodes);
    let rest = world.all_but(&[7]);
    let watches: Vec<_> = rest.iter().map(|host| world.watch(*host)).collect();

    let said = world.run(0, &["leave", "h8"]).ended_with(0);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("h8 has left cluster pmd\n", ""), "{said:#?}");
    watches.iter().for_each(|watch| watch.wait_for("node_left", "h8"));
    world.wait_until_agreed(&rest);
    world.wait_for_names(&rest, &nodes[..1]);
    // Its nodes are not affected: it answers for them as before.
    world.wait_for_names(&[7], &nodes[1..]);
    assert!(nodes[1].is_open());
    world.wait_on(&[7], "no other members", |host| {
        world.status(host).is_some_and(|status| status.left && status.members == 1 && status.links == 0)
    });
    // It does not return, and no restarting member brings it back.
    assert_eq!(world.run(1, &["join", "h8"]).code, 5);
    world[1].terminate();
    world.start(1);
    world.wait_until_agreed(&rest);
    assert_eq!(watches[0].count("node_up", "h8"), 1);
    assert!(world.status(7).is_some_and(|status| status.left && status.members == 1));

    world.run(7, &["join", "h3"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    watches[0].never("node_down", "h8");
}

#[test]
fn unknown_members_cannot_be_told_to_leave() {
    let world = World::joined(2);
    for (who, code, word) in [("h9", 4, "h9"), ("10.77.0.200", 4, "10.77.0.200"), ("h1", 2, "itself")] {
        let said = world.run(0, &["leave", who]);
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:#?}");
        assert!(said.stderr.contains(word) && said.stderr.contains("hint: "), "{said:#?}");
    }
    // A member can be named by its address as well.
    world.run(0, &["leave", "10.77.0.2"]).ended_with(0);
    world.wait_until_agreed(&[0]);
}

#[test]
fn the_port_is_free_while_a_stopping_daemon_says_goodbye() {
    let mut world = World::new(2);
    // With explicit addresses, each alias needs its own listener.
    world[1].configure("bind = [\"10.77.0.2\"]\njoin = [\"10.77.0.1\"]\n");
    world.start_all();
    world.wait_until_agreed(&world.all());
    let listeners = |world: &World| {
        let look = || sockets::find(|socket| socket.listens && socket.local.port() == PORT);
        world.site(1).cell.run(look).expect("the list of sockets").len()
    };
    // Its own address, two loopback addresses, its own alias, and that of the other host.
    wait_until("the aliases to be listened on", || listeners(&world) == 5);
    // An incomplete request keeps the daemon shutting down for longer than the checks below take.
    let mut control =
        UnixStream::connect(world[1].file(&format!("pmd-{PORT}.sock"))).expect("the daemon listens");
    control.write_all(b"GET /v1/status").expect("writing half a request");
    // A later request is answered, so this one has been accepted.
    assert!(world.status(1).is_some());
    world[1].daemon().signal(rustix::process::Signal::TERM);
    wait_until("all listeners to be closed", || listeners(&world) == 0);
    assert!(world[1].daemon().is_running(), "the daemon exited before the check");
    // So a successor can start at once.
    world[1].let_go();
    world.start(1);
    world.wait_until_agreed(&world.all());
}
