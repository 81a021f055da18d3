//! How a daemon goes on purpose: nobody has to find out.

use crate::world::World;

#[test]
fn who_stops_says_so() {
    let mut world = World::joined(3);
    let node = world.register(2, "alice", 41_001);
    world.wait_for_names(&world.all(), [&node]);
    let watches = [world.watch(0), world.watch(1)];
    world[2].terminate();
    for watch in &watches {
        watch.wait_for("node_left", "h3");
        watch.wait_for("name_down", "alice");
    }
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], []);
    watches.iter().for_each(|watch| watch.never("node_down", "h3"));
}

#[test]
fn stop_is_the_same_by_command() {
    let mut world = World::joined(2);
    let watch = world.watch(0);
    world.run(1, &["stop"]).ended_with(0);
    watch.wait_for("node_left", "h2");
    world.wait_until_agreed(&[0]);
    watch.never("node_down", "h2");
    assert!(world[1].daemon().wait(crate::world::PATIENCE).success());
}

#[test]
fn who_leaves_goes_on_alone_and_can_come_back() {
    let world = World::joined(3);
    let nodes = [0, 1, 2].map(|host| world.register(host, "node", 41_001));
    world.wait_for_names(&world.all(), &nodes);
    let watch = world.watch(0);
    world.run(2, &["leave"]).ended_with(0);
    watch.wait_for("node_left", "h3");
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], &nodes[..2]);
    // Its own nodes are still answered for, and it is nobody's member.
    world.wait_for_names(&[2], &nodes[2..]);
    assert!(nodes[2].is_open());
    world.wait_on(&[2], "nobody else", |host| {
        world.status(host).is_some_and(|status| status.left && status.members == 1 && status.links == 0)
    });
    // Nobody may draw it back in.
    let refused = world.run(0, &["join", "h3"]);
    assert_eq!(refused.code, 5, "{refused:#?}");

    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    watch.never("node_down", "h3");
}
