//! No descriptor left while the daemon runs: somebody has lowered its limit below what it uses.

use crate::budget::{self, Claim};
use crate::client::{Client, Verdict};
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Node, Setting, World, play};

/// Idle connections that are there before.
const IDLE: usize = 40;
/// Threads that ask at a time.
const THREADS: usize = 16;
/// How often each of them does.
const TIMES: usize = 300;

/// Nodes that have the lowest descriptors, and idle connections above them.
fn nodes_and_idle_and_no_descriptor(world: &World) -> (Vec<Node>, Vec<Client>) {
    let nodes: Vec<_> = (0..20).map(|n| world.register(Alive2::new(format!("node{n}")))).collect();
    let limit = first_free(world);
    let idle: Vec<_> = (0..IDLE).map(|_| world.send(&wire::header(9))).collect();
    wait_until("the idle connections to be accepted", || world.count_connections() >= nodes.len() + IDLE);
    // Now it makes no difference if the idle connections are closed: their numbers are beyond the limit.
    world.limit_descriptors(limit);
    (nodes, idle)
}

/// The lowest number that the daemon could give to a new connection.
fn first_free(world: &World) -> usize {
    let used = world.descriptors_in_use();
    (0..).find(|number| !used.contains(number)).expect("they are finite")
}

/// With the limit of before, everything works again.
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
fn look_ups_are_answered_without_a_free_descriptor() {
    play(&Setting::new(), |world| {
        let (nodes, idle) = nodes_and_idle_and_no_descriptor(world);
        for _ in 0..20 {
            nodes.iter().for_each(|node| world.look_up(&node.request));
            world.wait_until_listed(&nodes);
        }
        // What would have to stay cannot.
        assert_eq!(world.try_register(Alive2::new("newcomer")).err(), Some(Verdict::Closed));
        assert_eq!(world.send(&wire::header(9)).answer(), b"");
        world.look_up_residents();
        assert!(world.log().contains("cannot accept a connection"), "the log must say so: {}", world.log());
        recovers(world, &nodes);
        drop(idle);
    });
}

#[test]
fn the_last_descriptor_is_never_lost_to_a_connection_that_stays() {
    contend(&Setting::new());
}

#[test]
fn the_last_descriptor_is_never_lost_between_several_threads() {
    contend(&Setting::new().threads(3));
}

fn contend(setting: &Setting) {
    let _claim = Claim::of(THREADS * TIMES);
    play(setting, |world| {
        let (nodes, _idle) = nodes_and_idle_and_no_descriptor(world);
        // Everybody wants the one descriptor at once: those who would keep it must not get it.
        let kept: Vec<Client> = std::thread::scope(|scope| {
            let greedy: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || greedy(world, thread))).collect();
            for _ in 0..TIMES / 4 {
                world.look_up_residents();
            }
            greedy.into_iter().flat_map(|thread| thread.join().expect("a thread that asks")).collect()
        });
        // Whatever they have got is still theirs, and the others are answered all the same.
        for _ in 0..20 {
            nodes.iter().for_each(|node| world.look_up(&node.request));
        }
        drop(kept);
        recovers(world, &nodes);
    });
}

/// Wants to register, or to say half a request; returns the connections that were not closed.
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
