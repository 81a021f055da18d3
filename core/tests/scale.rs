//! Clusters of three to a thousand daemons: all join at once, and all see a registration.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use pmd_core::sim::World;
use pmd_protocol::peer::Kind;
use support::{cluster, is_fine, state};

/// Registers a service, and returns the milliseconds until each daemon finds it, sorted.
fn broadcast(world: &mut World, number: usize, name: &str) -> Vec<u64> {
    world.register(number, name, 1);
    let start = world.now_ms();
    let mut waiting: Vec<_> = world.nodes().map(|(number, _)| number).collect();
    let mut took = Vec::new();
    while !waiting.is_empty() && world.now_ms() < start + 5_000 {
        waiting.retain(|number| {
            let found = world.node(*number).unwrap().replica().view().look_up(Kind::SERVICE, name.as_bytes());
            if !found.is_empty() {
                took.push(world.now_ms() - start);
            }
            found.is_empty()
        });
        world.run_for(1);
    }
    assert_eq!(waiting, [] as [usize; 0], "{name} was not found");
    took
}

fn joins_and_broadcasts(seed: u64, count: usize, rounds: usize) {
    let mut world = cluster(seed, count);
    let joined = world.now_ms();
    assert!(joined <= 1_000, "{count} joined within {joined} ms");
    // After the first exchange, the links used for joining are closed and the broadcast trees are incomplete.
    world.run_for(100_000);
    let mut all = Vec::new();
    for round in 0..rounds {
        all.extend(broadcast(&mut world, round * 7 % count, &format!("service-{round}")));
        world.run_for(100);
    }
    all.sort_unstable();
    let late = all[all.len() * 99 / 100];
    println!("{count} daemons: joined within {joined} ms, registrations found by 99 % within {late} ms");
    assert!(late <= 100, "{count}: {late} ms");
    assert!(world.run_until(2_000, World::is_converged), "{}", state(&world));
    is_fine(&world);
    let links: usize = world.nodes().map(|(_, node)| node.links().count()).sum();
    assert!(links / count <= 12, "{links} links");
}

#[test]
fn up_to_three_hundred() {
    for (seed, count) in [(500, 3), (501, 10), (502, 30), (503, 100), (504, 300)] {
        joins_and_broadcasts(seed, count, 10);
    }
}

#[test]
fn a_thousand() {
    joins_and_broadcasts(505, 1_000, 3);
}
