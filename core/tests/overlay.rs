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

/// Whoever is turned away because a daemon has too many links chooses another, instead of dialling it again.
#[test]
fn a_daemon_that_declines_is_not_dialled_again_and_again() {
    let mut small = Tuning::default();
    small.gossip.random = 0;
    let (mut crowded, mut links) = (0, 0);
    for seed in 720..730 {
        // The first daemon keeps at most eight links, and some of the others want more.
        let mut world = World::with_tuning(seed, small.clone());
        world.start();
        world.tune(Tuning::default());
        let others: Vec<usize> = (1..30).map(|_| world.start()).collect();
        others.iter().for_each(|other| world.join(*other, 0));
        world.run_for(60_000);
        crowded += usize::from(world.node(0).unwrap().links().count() > 8);
        world.run_for(120_000);
        let mut seen = BTreeSet::new();
        for _ in 0..600 {
            world.run_for(1_000);
            seen.extend(world.node(0).unwrap().links().map(|(id, _)| id));
        }
        links += seen.len();
        is_fine(&world);
        assert_eq!(downs(&world), []);
    }
    assert!(crowded > 0, "nobody is declined");
    // Those that it keeps, and in each of ten minutes two for a comparison: its own and that of another.
    assert!(links <= 10 * (8 + 2 * 10) * 5 / 4, "{links} links, crowded {crowded}");
    println!("{links} links, crowded {crowded}");
}
