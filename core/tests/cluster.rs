//! Simulated clusters in normal operation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use pmd_core::sim::World;
use support::{cluster, downs, found, is_fine, state, time_until};

#[test]
fn three_daemons_see_each_other() {
    let mut world = cluster(1, 3);
    println!("converged after {} ms", world.now_ms());
    world.register(2, "db", 5432);
    world.run_for(100);
    assert_eq!(found(&world, "db"), [1, 1, 1]);
    world.unregister(2, "db");
    world.run_for(100);
    assert_eq!(found(&world, "db"), [0, 0, 0]);
    is_fine(&world);
}

#[test]
fn a_registration_is_seen_by_a_hundred_within_100_ms() {
    let mut world = cluster(2, 100);
    println!("100 joined within {} ms", world.now_ms());
    assert!(world.now_ms() <= 1_000, "joined within {} ms", world.now_ms());
    world.run_for(10_000);
    for round in 0..10 {
        let name = format!("service-{round}");
        world.register(round * 7, &name, 1);
        let took = time_until(&mut world, &name, 1, 1_000);
        assert!(took <= 100, "{took} ms");
    }
    is_fine(&world);
}

#[test]
fn updates_arrive_although_links_come_and_go() {
    // Once a minute, each daemon links to a random member for ten seconds. Updates that used such a link need a
    // different path afterwards. One that is under way when the link closes has to be requested, which is rare: without
    // a path prepared, it happens in almost every second round.
    const ROUNDS: usize = 90;
    let mut late = Vec::new();
    for seed in 8..12 {
        let mut world = cluster(seed, 30);
        world.run_for(20_000);
        for round in 0..ROUNDS {
            let name = format!("service-{round}");
            world.register(round * 7 % 30, &name, 1);
            let took = time_until(&mut world, &name, 1, 100);
            if took >= 30 {
                late.push((seed, round, took));
            }
            world.run_for(500);
        }
        is_fine(&world);
    }
    assert!(late.len() <= 4 * ROUNDS / 20, "{late:?}");
}

#[test]
fn a_killed_process_is_down_everywhere_within_three_seconds() {
    for (seed, count) in [(3, 2), (4, 3), (5, 10), (6, 50)] {
        let mut world = cluster(seed, count);
        world.register(1, "db", 1);
        time_until(&mut world, "db", 1, 1_000);
        world.run_for(5_000);
        world.kill(1);
        let took = time_until(&mut world, "db", 0, 10_000);
        println!("{count}: killed process gone after {took} ms");
        assert!(took <= 3_000, "{count}: {took} ms");
        world.run_for(5_000);
        is_fine(&world);
    }
}

#[test]
fn two_daemons_that_dial_each_other_at_once_keep_one_link() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.start();
        world.start();
        world.join(0, 1);
        world.join(1, 0);
        assert!(world.run_until(5_000, World::is_converged), "{seed}: {}", state(&world));
        // It is too early for a redial, so they did not close both links and start over.
        world.run_for(300);
        assert!(world.nodes().all(|(_, node)| node.links().count() == 1), "{seed}: {}", state(&world));
        world.run_for(5_000);
        is_fine(&world);
        assert!(world.nodes().all(|(_, node)| node.links().count() == 1));
    }
}

#[test]
fn a_daemon_that_dials_itself_notices() {
    let mut world = World::new(19);
    world.start();
    world.join(0, 0);
    world.run_for(2_000);
    is_fine(&world);
    assert_eq!(world.node(0).unwrap().links().count(), 0);
}

#[test]
fn a_thousand_registrations_at_once_arrive_as_a_whole() {
    let mut world = cluster(21, 10);
    for number in 0..1_000 {
        world.register(4, &format!("many-{number}"), 1);
    }
    let took = time_until(&mut world, "many-999", 1, 5_000);
    println!("1,000 registrations after {took} ms");
    assert!(world.run_until(1_000, World::is_converged));
    is_fine(&world);
}

#[test]
fn a_daemon_that_leaves_is_reported_as_left() {
    use pmd_core::event::{ClusterChange, Departure};
    use pmd_core::node::Command;
    let mut world = cluster(22, 6);
    world.register(2, "db", 1);
    world.run_for(5_000);
    let id = world.node(2).unwrap().identity().id;
    world.command(2, Command::Leave);
    world.run_for(400);
    world.kill(2);
    world.run_for(5_000);
    is_fine(&world);
    for (number, _) in world.nodes() {
        let last = world
            .events_of(number)
            .iter()
            .rfind(|event| event.origin == id && !matches!(event.change, ClusterChange::ServiceDown(_)));
        assert_eq!(last.unwrap().change, ClusterChange::NodeLeft(Departure::Left));
    }
}

#[test]
fn lost_frames_kill_nobody() {
    let mut world = cluster(23, 12);
    world.faults.loss_permille = 50;
    world.run_for(300_000);
    is_fine(&world);
    assert_eq!(downs(&world), []);
}

#[test]
fn equal_seeds_have_equal_histories() {
    let run = |seed| {
        let mut world = cluster(seed, 12);
        world.register(3, "db", 1);
        world.kill(5);
        world.faults.loss_permille = 100;
        world.run_for(20_000);
        (world.log_hash(), world.events(), world.traffic())
    };
    assert_eq!(run(24), run(24));
    assert_ne!(run(24).0, run(25).0);
}

/// The bytes per second that each of `count` idle daemons with `services` services sends, including TLS, and including
/// TCP and IP as well.
fn idle(seed: u64, count: usize, services: usize) -> (u64, u64) {
    let mut world = cluster(seed, count);
    for number in 0..count {
        (0..services).for_each(|service| world.register(number, &format!("service-{service}"), 1));
    }
    world.run_for(100_000);
    let before = world.traffic();
    world.run_for(120_000);
    let sent = world.traffic().since(&before);
    is_fine(&world);
    assert_eq!(downs(&world), []);
    let each = |bytes: u64| bytes / u64::try_from(count).unwrap() / 120;
    println!(
        "{count} daemons, {services} services each: {} bytes per second each, {} with TCP/IP: {sent:?}",
        each(sent.encrypted()),
        each(sent.on_the_wire())
    );
    (each(sent.encrypted()), each(sent.on_the_wire()))
}

#[test]
fn idle_traffic_is_flat() {
    for (seed, count, services) in [(26, 3, 0), (27, 30, 0), (28, 30, 50), (29, 100, 0), (30, 300, 3)] {
        let (encrypted, on_the_wire) = idle(seed, count, services);
        assert!(encrypted <= 350, "{count}, {services}: {encrypted}");
        assert!(on_the_wire <= 1_000, "{count}, {services}: {on_the_wire}");
    }
}

#[test]
fn a_daemon_that_asks_knows_that_all_agree_before_the_next_heartbeat() {
    let agrees = |world: &World, number: usize| {
        let node = world.node(number).unwrap();
        let own = node.replica().summary();
        node.links()
            .all(|(_, link)| link.summary().is_some_and(|theirs| theirs.fingerprint == own.fingerprint))
    };
    let mut world = cluster(77, 100);
    world.run_for(60_000);
    for round in 0..10 {
        world.register(round, &format!("service-{round}"), 1);
        let name = format!("service-{round}");
        time_until(&mut world, &name, 1, 1_000);
        // All have it, but the peers have not reported it yet, because heartbeats are sent every one or three seconds.
        assert!(!agrees(&world, 50), "round {round}");
        let (before, heartbeats) = (world.now_ms(), next_heartbeats(&world, 50));
        world.request_summaries(50);
        assert!(world.run_until(2_000, |world| agrees(world, 50)), "round {round}");
        // It took a round trip, during which the daemon sent only the heartbeats that were due.
        let due = heartbeats.iter().filter(|due| **due <= world.now_ms()).count();
        let sent = next_heartbeats(&world, 50).iter().filter(|next| !heartbeats.contains(next)).count();
        assert!(sent <= due, "round {round}: {sent} heartbeats, {due} were due");
        assert!(world.now_ms() - before <= 250, "round {round}: {} ms", world.now_ms() - before);
        world.run_for(5_000);
    }
    is_fine(&world);
}

fn next_heartbeats(world: &World, number: usize) -> Vec<u64> {
    world.node(number).unwrap().links().map(|(_, link)| link.next_heartbeat_ms).collect()
}
