//! Daemons that crash, freeze, restart, or have wrong clocks.

use std::path::Path;
use std::time::Duration;

use crate::machine::Registered;
use crate::world::World;

/// Debian's path of libfaketime.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn a_killed_daemon_is_noticed_by_all() {
    let mut world = World::joined(4);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let others = world.all_but(&[3]);
    let watches: Vec<_> = others.iter().map(|host| world.watch(*host)).collect();
    world[3].kill();
    watches.iter().for_each(|watch| watch.wait_for("node_down", "h4"));
    world.wait_until_agreed(&others);
    world.wait_for_names(&others, &nodes[..3]);
    for watch in &watches {
        watch.never("node_left", "h4");
        (1..=3).for_each(|living| watch.never("node_down", &format!("h{living}")));
    }
}

#[test]
fn a_daemon_frozen_for_half_a_minute_returns_with_all_its_nodes() {
    let world = World::joined(5);
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    let watch = world.watch(0);
    world[4].freeze();
    world.let_pass(Duration::from_secs(30));
    watch.wait_for("node_down", "h5");
    let others = world.all_but(&[4]);
    world.wait_until_agreed(&others);
    world.wait_for_names(&others, &nodes[..4]);
    let news = world.register(1, "news", 42_000);
    world[4].thaw();
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), nodes.iter().chain([&news]));
    assert!(nodes.iter().all(Registered::is_open), "a node lost its registration");
}

#[test]
fn a_daemon_that_restarts_at_once_brings_back_no_old_entries() {
    let mut world = World::joined(3);
    world[2].configure("join = [\"10.77.0.1\"]\n");
    let old = world.register(2, "old", 41_000);
    let kept = world.register(0, "kept", 41_001);
    world.wait_for_names(&world.all(), [&old, &kept]);
    // It is back before any member can notice.
    world[2].kill();
    world.start(2);
    let new = world.register(2, "new", 41_002);
    world.wait_for_names(&world.all(), [&kept, &new]);
    world.wait_until_agreed(&world.all());
    assert!(!old.is_open() && kept.is_open());
}

#[test]
fn a_daemon_that_restarts_later_brings_back_no_old_entries() {
    let mut world = World::joined(3);
    let old = world.register(2, "old", 41_000);
    world.wait_for_names(&world.all(), [&old]);
    world[2].kill();
    world.wait_until_agreed(&[0, 1]);
    world.start(2);
    // It has no seed: the members that lost it look for it.
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), []);
}

#[test]
fn a_crash_loop_leaves_no_stale_entries() {
    let mut world = World::joined(3);
    world[2].configure("join = [\"10.77.0.1\"]\n");
    for round in 0..10 {
        world[2].kill();
        world.start(2);
        let node = world.register(2, &format!("life{round}"), 41_000);
        // In every second run, it lives long enough for others to hear of it.
        if round % 2 == 0 {
            world.wait_for_names(&[0], [&node]);
        }
    }
    let last = world.register(2, "last", 41_001);
    world.wait_until_agreed(&world.all());
    world.wait_on(&world.all(), "the last life only", |host| {
        let names = world.names(host);
        names.contains(&last.entry()) && names.iter().all(|(name, _, _)| !name.starts_with("life"))
    });
}

#[test]
fn all_restart_at_once_and_find_each_other() {
    let mut world = World::new(10);
    for host in world.all() {
        world[host].configure("join = [\"10.77.0.1\", \"10.77.0.2\", \"10.77.0.3\"]\n");
    }
    world.start_all();
    world.wait_until_agreed(&world.all());
    for _ in 0..2 {
        world.all().into_iter().for_each(|host| world[host].kill());
        world.start_all();
        let nodes: Vec<_> =
            world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
        world.wait_until_agreed(&world.all());
        world.wait_for_names(&world.all(), &nodes);
    }
}

#[test]
fn clocks_that_are_years_apart_do_not_matter() {
    assert!(
        Path::new(FAKETIME).exists(),
        "{FAKETIME} is missing: install the package faketime (scripts/install-test-deps does)"
    );
    let mut world = World::new(3);
    for (host, shift) in [(0, "+0"), (1, "+365d"), (2, "-365d")] {
        world[host].configure("join = [\"10.77.0.1\"]\n");
        // Only the wall clock is faked, not the monotonic clock.
        let environment =
            [("LD_PRELOAD", FAKETIME), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        world.start_with(host, &environment);
    }
    world.wait_until_agreed(&world.all());
    let nodes: Vec<_> = world.all().into_iter().map(|host| world.register(host, "node", 41_000)).collect();
    world.wait_for_names(&world.all(), &nodes);
    // The daemon with the future date restarts with a past date.
    world[1].kill();
    world.wait_until_agreed(&[0, 2]);
    world.start(1);
    let again = world.register(1, "again", 41_001);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), [&nodes[0], &again, &nodes[2]]);
}
