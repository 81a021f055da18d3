//! Partitions, complete or in one direction, and how they heal.

use std::time::Duration;

use crate::world::World;

#[test]
fn a_third_cut_off_for_half_a_minute_loses_nothing() {
    let world = World::joined(9);
    let mut nodes: Vec<_> =
        world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let (large, small) = ([0, 1, 2, 3, 4, 5], [6, 7, 8]);
    world.fleet().cut(&large, &small);
    // On both sides a node stops and another starts, unknown to the other side.
    drop(nodes.remove(8));
    drop(nodes.remove(0));
    nodes.push(world.register(2, "new", 42_000));
    nodes.push(world.register(7, "new", 42_000));
    world.let_pass(Duration::from_secs(30));
    for side in [&large[..], &small[..]] {
        world.wait_until_agreed(side);
        let visible = nodes.iter().filter(|node| side.iter().any(|host| world[*host].name == node.host));
        world.wait_for_names(side, visible);
    }
    world.fleet().heal();
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    assert!(nodes.iter().all(crate::machine::Registered::is_open), "a node lost its registration");
}

#[test]
fn a_partition_shorter_than_the_suspicion_timeout_has_no_effect() {
    let world = World::joined(4);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    for _ in 0..3 {
        world.fleet().cut(&[0, 1], &[2, 3]);
        let _gone = world.register(0, "short", 42_000);
        world.let_pass(Duration::from_millis(500));
        world.fleet().heal();
    }
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
}

#[test]
fn two_clusters_that_never_met_merge() {
    let world = World::started(6);
    let join = |host: usize, seed: &str| world.run(host, &["join", seed]).ended_with(0);
    for (host, seed) in [(1, "h1"), (2, "h1"), (4, "h4"), (5, "h4")] {
        join(host, seed);
    }
    world.wait_until_agreed(&[0, 1, 2]);
    world.wait_until_agreed(&[3, 4, 5]);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    join(5, "h3");
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
}

#[test]
fn two_hosts_that_cannot_reach_each_other_stay_members_through_the_others() {
    let world = World::joined(5);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    world.fleet().cut_one_way(&[0], &[1]);
    world.let_pass(Duration::from_secs(20));
    // Still cut off from each other, and still members everywhere.
    world.wait_until_equal(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    let news = [world.register(0, "news", 42_000), world.register(1, "news", 42_000)];
    world.wait_for_names(&world.all(), nodes.iter().chain(&news));
    world.fleet().heal();
    world.wait_until_agreed(&world.all());
}

#[test]
fn a_host_that_receives_but_cannot_send_recovers() {
    let world = World::joined(4);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let others = world.all_but(&[3]);
    world.fleet().cut_one_way(&[3], &others);
    world.wait_until_agreed(&others);
    world.wait_for_names(&others, &nodes[..3]);
    world.fleet().heal();
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
}

#[test]
fn an_unplugged_host_is_removed_and_returns() {
    let world = World::joined(3);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let watch = world.watch(0);
    world.fleet().plug(2, false);
    watch.wait_for("node_down", "h3");
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], &nodes[..2]);
    world.wait_until_agreed(&[2]);
    world.wait_for_names(&[2], &nodes[2..]);
    world.fleet().plug(2, true);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
    assert!(nodes.iter().all(crate::machine::Registered::is_open));
}
