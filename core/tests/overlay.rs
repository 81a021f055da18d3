//! The number of links: bounded however a cluster comes about and whatever its members keep, and steady.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use std::collections::BTreeSet;

use pmd_core::node::LinkId;
use pmd_core::sim::World;
use pmd_core::tuning::Tuning;
use support::{cluster, downs, is_fine};

/// Four links for each of the five targets.
const MOST: usize = 20;
/// Links that come and go: comparisons of registries with members that have no link.
const TRANSIENT: usize = 4;

fn links(world: &World) -> Vec<usize> {
    world.nodes().map(|(_, node)| node.links().count()).collect()
}

/// The links of all daemons.
fn ids(world: &World) -> BTreeSet<(usize, LinkId)> {
    world.nodes().flat_map(|(number, node)| node.links().map(move |(id, _)| (number, id))).collect()
}

/// All join one at once: neither it nor those that others know first keep many links, and none is closed and dialled
/// again and again.
#[test]
fn links_are_few_and_steady_after_a_mass_join() {
    for (seed, count) in [(700, 100), (701, 300)] {
        let mut world = cluster(seed, count);
        world.run_for(120_000);
        let most = links(&world).into_iter().max();
        assert!(most <= Some(MOST + TRANSIENT), "{count}: {most:?} links");
        let before = ids(&world);
        world.run_for(300_000);
        let kept = before.intersection(&ids(&world)).count();
        // Those that were for a comparison at that moment are gone.
        assert!(kept * 100 >= before.len() * 93, "{count}: {kept} of {} links were kept", before.len());
        is_fine(&world);
        assert_eq!(downs(&world), []);
    }
}

/// Members that never close a link they have dialled: they do not use up those of the member that all of them dial.
#[test]
fn members_that_keep_their_links_are_closed_by_the_other_side() {
    let mut world = cluster(710, 30);
    let mut tuning = Tuning::default();
    tuning.gossip.surplus_ms = u64::MAX / 16;
    world.tune(tuning);
    let hoarders: Vec<usize> = (0..60).map(|_| world.start()).collect();
    hoarders.iter().for_each(|hoarder| world.join(*hoarder, 0));
    world.run_for(5_000);
    assert!(links(&world)[0] >= 60, "{:?}", links(&world));
    world.run_for(90_000);
    assert!(links(&world)[0] <= MOST + TRANSIENT, "{:?}", links(&world));
    // All of them are still members, over other links.
    world.run_for(300_000);
    is_fine(&world);
    assert_eq!(downs(&world), []);
    assert!(links(&world)[0] <= MOST + TRANSIENT, "{:?}", links(&world));
}
