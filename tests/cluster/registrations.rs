//! Registrations on one host appear and disappear on all hosts.

use crate::harness::wait_within;
use crate::world::{PATIENCE, World};

/// Registrations in a burst.
const BURST: u16 = 1_000;

#[test]
fn two_hosts_see_each_others_nodes() {
    let world = World::joined(2);
    let alice = world.register(0, "alice", 41_001);
    let bob = world.register(1, "bob", 41_002);
    world.wait_for_names(&world.all(), [&alice, &bob]);
    for host in world.all() {
        let said = world.run(host, &["names", "--cluster"]).ended_with(0);
        assert!(said.stdout.contains("alice@h1") && said.stdout.contains("bob@h2"), "{said:#?}");
    }
    // NAMES lists one host only, because that is what its readers expect.
    let own = world.run(0, &["names"]).ended_with(0).stdout;
    assert!(own.contains("alice") && !own.contains("bob"), "{own}");

    drop(bob);
    world.wait_for_names(&world.all(), [&alice]);
    let again = world.register(1, "bob", 41_003);
    world.wait_for_names(&world.all(), [&alice, &again]);
    drop(alice);
    drop(again);
    world.wait_for_names(&world.all(), []);
}

#[test]
fn registrations_from_before_the_join_are_seen_after_it() {
    let world = World::started(3);
    let nodes = [0, 1, 2].map(|host| world.register(host, "early", 41_000));
    world.wait_for_names(&[2], [&nodes[2]]);
    world.join_first(1..3);
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), &nodes);
}

#[test]
fn services_are_known_on_all_hosts() {
    let world = World::joined(3);
    let meta = ["--meta", "zone=north"];
    world.run(0, &[&["register", "web", "-P", "8080"][..], &meta].concat()).ended_with(0);
    world.run(2, &["register", "web", "-P", "8081"]).ended_with(0);
    let ports = |host: usize| -> Vec<(String, u16)> {
        let list = world.block_on(world[host].api().cluster_services()).expect("services");
        list.services.into_iter().map(|service| (service.host, service.port)).collect()
    };
    let both = [("h1".to_owned(), 8080), ("h3".to_owned(), 8081)];
    world.wait_on(&world.all(), "both services", |host| ports(host) == both);
    let shown = world.run(1, &["services", "--cluster", "--json"]).ended_with(0);
    assert!(shown.stdout.contains("north"), "{shown:#?}");

    world.run(0, &["unregister", "web"]).ended_with(0);
    world.wait_on(&world.all(), "one service", |host| ports(host) == both[1..]);
}

#[test]
fn a_service_that_is_not_renewed_expires_everywhere() {
    let world = World::joined(2);
    world.run(0, &["register", "short", "-P", "8080", "--ttl", "2s"]).ended_with(0);
    let count =
        |host: usize| world.block_on(world[host].api().cluster_services()).map(|list| list.services.len());
    world.wait_on(&[1], "the service to come", |host| matches!(count(host), Ok(1)));
    world.wait_on(&world.all(), "the service to end", |host| matches!(count(host), Ok(0)));
}

#[test]
fn a_burst_on_one_host_is_seen_on_all() {
    let world = World::joined(3);
    let nodes = world[1].register_burst(world.site(1), "burst", BURST);
    world.wait_for_names(&world.all(), &nodes);
    world.wait_until_agreed(&world.all());
    // Only half of them end, so that forgetting everything would fail the test.
    let mut nodes = nodes;
    nodes.truncate(usize::from(BURST) / 2);
    world.wait_for_names(&world.all(), &nodes);
    assert!(nodes.iter().all(crate::machine::Registered::is_open), "a node lost its registration");
}

#[test]
fn a_frozen_daemon_does_not_delay_others() {
    let world = World::joined(4);
    world[3].freeze();
    let others = world.all_but(&[3]);
    let nodes = world[0].register_burst(world.site(0), "burst", BURST);
    // Whatever the others conclude from the fourth's silence, they exchange updates.
    world.wait_for_names(&others, &nodes);
    world[3].thaw();
    world.wait_for_names(&world.all(), &nodes);
    world.wait_until_agreed(&world.all());
}

#[test]
fn a_host_on_a_slow_link_does_not_delay_others() {
    let world = World::joined(4);
    let watch = world.watch(0);
    world.fleet().slow_down(3, 128);
    let others = world.all_but(&[3]);
    let nodes = world[0].register_burst(world.site(0), "burst", BURST);
    world.wait_for_names(&others, &nodes);
    world.wait_for_names(&world.all(), &nodes);
    world.wait_until_agreed(&world.all());
    watch.never("node_left", "h4");
}

#[test]
fn events_of_other_hosts_are_delivered_once() {
    let world = World::joined(2);
    let watch = world.watch(1);
    let node = world.register(0, "alice", 41_001);
    watch.wait_for("name_up", "alice");
    drop(node);
    watch.wait_for("name_down", "alice");
    let _again = world.register(0, "alice", 41_002);
    wait_within(PATIENCE, "alice to be back", || watch.count("name_up", "alice") == 2);
    // This event comes after all others, including any duplicates.
    let _last = world.register(0, "bob", 41_003);
    watch.wait_for("name_up", "bob");
    let told: Vec<_> = watch.events().into_iter().filter(|event| event.name == "alice").collect();
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["name_up", "name_down", "name_up"], "{told:#?}");
    assert!(told.iter().all(|event| event.host == "h1" && event.node_id.is_some()), "{told:#?}");
}
