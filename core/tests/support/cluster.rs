//! Clusters to begin with, and what can be seen from outside.

#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(unreachable_pub, reason = "a part of tests, not of an interface")]

use pmd_core::sim::{SimNode, World};
use pmd_core::tuning::Tuning;
use pmd_protocol::peer::Kind;

/// `count` daemons of which all joined the first, converged.
pub fn cluster(seed: u64, count: usize) -> World {
    cluster_of(seed, count, Tuning::default())
}

/// The same with these settings.
pub fn cluster_of(seed: u64, count: usize, tuning: Tuning) -> World {
    let mut world = World::with_tuning(seed, tuning);
    for _ in 0..count {
        world.start();
    }
    for number in 1..count {
        world.join(number, 0);
    }
    assert!(world.run_until(20_000, World::is_converged), "not converged: {}", state(&world));
    world
}

pub fn state(world: &World) -> String {
    let line = |(number, node): (usize, &SimNode)| {
        format!(
            "{number}: {} members, {} links, {:.8}\n",
            node.members().count(),
            node.links().count(),
            node.registry().fingerprint()
        )
    };
    world.nodes().take(20).map(line).collect()
}

pub fn is_fine(world: &World) {
    assert_eq!(world.audit(), [] as [String; 0]);
    assert!(world.is_converged(), "{}", state(world));
}

/// How many daemons find a service of this name, and how many holders each.
pub fn found(world: &World, name: &str) -> Vec<usize> {
    world
        .nodes()
        .map(|(_, node)| node.registry().directory().look_up(Kind::SERVICE, name.as_bytes()).len())
        .collect()
}

/// Milliseconds until all running daemons find exactly `holders` services of this name.
pub fn time_until(world: &mut World, name: &str, holders: usize, most: u64) -> u64 {
    let start = world.now_ms();
    let all = |world: &World| found(world, name).iter().all(|found| *found == holders);
    assert!(world.run_until(most, all), "{name}: {:?} after {most} ms", found(world, name));
    world.now_ms() - start
}

/// Who was told that whom is gone: numbers of daemons.
pub fn downs(world: &World) -> Vec<(usize, usize)> {
    happened(world, "node_down")
}

/// Who was told such a thing about whom: numbers of daemons, in the order of events of each.
pub fn happened(world: &World, what: &str) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (observer, _) in world.nodes() {
        let events = world.events_of(observer).iter().filter(|event| event.what.as_str() == what);
        all.extend(events.filter_map(|event| Some((observer, world.number_of(&event.origin)?))));
    }
    all
}
