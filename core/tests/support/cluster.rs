//! Helpers that start clusters and observe them from outside.

#![allow(dead_code, reason = "shared by several test crates, each of which uses only a part")]
#![allow(unreachable_pub, reason = "test helper, not a public interface")]

use pmd_core::sim::{SimNode, World};
use pmd_core::tuning::Tuning;
use pmd_protocol::peer::Kind;

/// A converged cluster of `count` daemons, all joined through the first.
pub fn cluster(seed: u64, count: usize) -> World {
    cluster_of(seed, count, Tuning::default())
}

/// Like [`cluster`], with these parameters.
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
            node.replica().fingerprint()
        )
    };
    world.nodes().take(20).map(line).collect()
}

pub fn is_fine(world: &World) {
    assert_eq!(world.audit(), [] as [String; 0]);
    assert!(world.is_converged(), "{}", state(world));
}

/// The number of services of this name that each daemon finds.
pub fn found(world: &World, name: &str) -> Vec<usize> {
    world
        .nodes()
        .map(|(_, node)| node.replica().view().look_up(Kind::SERVICE, name.as_bytes()).len())
        .collect()
}

/// Milliseconds until all running daemons find exactly `holders` services of this name.
pub fn time_until(world: &mut World, name: &str, holders: usize, most: u64) -> u64 {
    let start = world.now_ms();
    let all = |world: &World| found(world, name).iter().all(|found| *found == holders);
    assert!(world.run_until(most, all), "{name}: {:?} after {most} ms", found(world, name));
    world.now_ms() - start
}

/// Pairs of daemons in which the first has reported the second as down.
pub fn downs(world: &World) -> Vec<(usize, usize)> {
    happened(world, "node_down")
}

/// Pairs of daemons in which the first has reported a `what` event about the second, in the order of its events.
pub fn happened(world: &World, what: &str) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (observer, _) in world.nodes() {
        let events = world.events_of(observer).iter().filter(|event| event.change.as_str() == what);
        all.extend(events.filter_map(|event| Some((observer, world.number_of(&event.origin)?))));
    }
    all
}
