//! Descriptor exhaustion at run time: the limit is lowered below the number in use.

use crate::budget::{self, Claim};
use crate::client::{Client, Verdict};
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Node, Setting, World, play};

/// Idle connections opened before the limit is lowered.
const IDLE: usize = 40;
/// Concurrent client threads.
const THREADS: usize = 16;
/// Requests per thread.
const TIMES: usize = 300;

/// Nodes with the lowest descriptors, and idle connections above them.
fn nodes_and_idle_and_no_descriptor(world: &World) -> (Vec<Node>, Vec<Client>) {
    let nodes: Vec<_> = (0..20).map(|n| world.register(Alive2::new(format!("node{n}")))).collect();
    let limit = first_free(world);
    let idle: Vec<_> = (0..IDLE).map(|_| world.send(&wire::header(9))).collect();
    wait_until("the idle connections to be accepted", || world.count_connections() >= nodes.len() + IDLE);
    // Closing the idle connections would not help now: their numbers are above the limit.
    world.limit_descriptors(limit);
    (nodes, idle)
}

/// The lowest descriptor that a new connection could get.
fn first_free(world: &World) -> usize {
    let used = world.descriptors_in_use();
    (0..).find(|number| !used.contains(number)).expect("a free number")
}

/// Restores the limit and checks that everything works again.
fn recovers(world: &World, nodes: &[Node]) {
    world.limit_descriptors(budget::descriptor_limit());
    let newcomers: Vec<_> = (0..50).map(|n| world.register(Alive2::new(format!("newcomer{n}")))).collect();
    let half = world.send(&wire::names()[..2]);
    world.look_up_residents();
    world.wait_until_listed(nodes.iter().chain(&newcomers));
    assert!(half.is_open() && half.send(&wire::names()[2..]));
    assert_eq!(half.answer(), world.ask(&wire::names()));
}

#[test]
fn lookups_are_answered_without_a_free_descriptor() {
    play(&Setting::new(), |world| {
        let (nodes, idle) = nodes_and_idle_and_no_descriptor(world);
        for _ in 0..20 {
            nodes.iter().for_each(|node| world.look_up(&node.request));
            world.wait_until_listed(&nodes);
        }
        // Requests that need a lasting connection are refused.
        assert_eq!(world.try_register(Alive2::new("newcomer")).err(), Some(Verdict::Closed));
        assert_eq!(world.send(&wire::header(9)).answer(), b"");
        world.look_up_residents();
        assert!(world.log().contains("cannot accept a connection"), "the log must say so: {}", world.log());
        recovers(world, &nodes);
        drop(idle);
    });
}

#[test]
fn the_reserve_descriptor_is_never_lost_to_a_lasting_connection() {
    contend(&Setting::new());
}

#[test]
fn the_reserve_descriptor_is_never_lost_among_several_threads() {
    contend(&Setting::new().threads(3));
}

fn contend(setting: &Setting) {
    let _claim = Claim::of(THREADS * TIMES);
    play(setting, |world| {
        let (nodes, _idle) = nodes_and_idle_and_no_descriptor(world);
        // All compete for the one descriptor: connections that would keep it must not get it.
        let kept: Vec<Client> = std::thread::scope(|scope| {
            let greedy: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || greedy(world, thread))).collect();
            for _ in 0..TIMES / 4 {
                world.look_up_residents();
            }
            greedy.into_iter().flat_map(|thread| thread.join().expect("joining a thread")).collect()
        });
        // Connections that were accepted stay open, and the others are still answered.
        for _ in 0..20 {
            nodes.iter().for_each(|node| world.look_up(&node.request));
        }
        drop(kept);
        recovers(world, &nodes);
    });
}

/// Registers or sends half a request, repeatedly; returns the connections that were not closed.
fn greedy(world: &World, thread: usize) -> Vec<Client> {
    let mut kept: Vec<Client> = Vec::new();
    for time in 0..TIMES {
        kept.push(world.send(&wire::alive2(format!("greedy{thread}-{time}"))));
        kept.push(world.send(&wire::header(9)));
        world.look_up_residents();
        kept.retain(Client::is_open);
    }
    kept
}
