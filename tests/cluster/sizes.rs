//! Clusters of many hosts.

use std::time::Duration;

use crate::harness::wait_within;
use crate::world::World;

/// A hundred daemons on a few cores may take a while for what each does at once on a host of its own.
const BUSY: Duration = Duration::from_secs(180);

#[test]
fn ten_hosts_in_a_row_are_one_cluster() {
    let world = World::started(10);
    // Each knows only the one before it.
    for host in 1..10 {
        let before = world[host - 1].name.clone();
        world.run(host, &["join", &before]).ended_with(0);
    }
    world.wait_until_agreed(&world.all());
    let nodes: Vec<_> = (0..10).map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let said = world.run(9, &["status", "--wait-converged", "60s", "--json"]).ended_with(0).json();
    assert_eq!(said["cluster"]["members"], 10, "{said:#}");
    let said = world.run(9, &["nodes", "--json"]).ended_with(0).json();
    assert_eq!(said["nodes"].as_array().map(Vec::len), Some(10), "{said:#}");
    let said = world.run(9, &["peers", "--json"]).ended_with(0).json();
    assert!(!said["peers"].as_array().expect("peers").is_empty(), "{said:#}");
}

#[test]
fn a_hundred_hosts_that_join_one_at_once_are_one_cluster() {
    const HOSTS: usize = 100;
    let mut world = World::joined(HOSTS);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    // All have joined one host; once the links made for joining are closed, each host has only a few.
    for host in world.all() {
        wait_within(BUSY, &format!("h{} to have few links", host + 1), || {
            world.status(host).is_some_and(|cluster| cluster.links <= 30)
        });
    }
    // Links are closed with a reason: one that just ends would look like a failed peer and cost four handshakes.
    for host in world.all() {
        let log = world[host].log();
        let ended =
            log.lines().find(|line| line.contains("link down") && line.contains("the connection ended"));
        assert_eq!(ended, None, "h{}", host + 1);
    }
    let dead = [17, 50, 99];
    dead.into_iter().for_each(|host| world[host].kill());
    let living = world.all_but(&dead);
    world.wait_until_agreed(&living);
    world.wait_for_names(&living, living.iter().map(|host| &nodes[*host]));
}
