//! Connections in great numbers that never become a request.

use std::net::SocketAddr;

use crate::budget::Claim;
use crate::client::Client;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play};

/// Connections of a flood.
const FLOOD: usize = 10_000;
/// Threads that make them.
const THREADS: usize = 4;
/// Descriptors of the daemon in the tests that are about having too few.
const FEW: usize = 128;

/// Requests that are not complete, of every kind there is.
pub(crate) fn halves() -> Vec<Vec<u8>> {
    let alive2 = wire::alive2("half");
    let look_up = wire::port2("alpha");
    vec![
        alive2[..1].to_vec(),
        wire::header(3057),
        look_up[..2].to_vec(),
        look_up[..look_up.len() - 1].to_vec(),
        alive2[..9].to_vec(),
        alive2[..alive2.len() - 1].to_vec(),
        [wire::header(3057), vec![b'z'; 3056]].concat(),
    ]
}

/// Makes `count` connections from several threads, each of which sends the next one of `pieces`.
fn flood(daemon: SocketAddr, count: usize, pieces: &[Vec<u8>]) -> Vec<Client> {
    std::thread::scope(|scope| {
        let connect = |number: usize| match pieces[number % pieces.len()].as_slice() {
            [] => Client::connect(daemon),
            piece => Client::sending(daemon, piece),
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|first| {
                scope.spawn(move || (first..count).step_by(THREADS).map(connect).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread that connects")).collect()
    })
}

#[test]
fn ten_thousand_silent_connections_hinder_nobody() {
    let claim = Claim::of(FLOOD);
    play(&Setting::new(), |world| {
        let flood = world.while_looked_up(|| flood(world.address(), claim.count(), &[Vec::new()]));
        are_held(world, &flood);
        // Where a flood makes the kernel send SYN cookies, it may take the last packets of an orderly end for the
        // first ones of a new connection, which then has no other end.
        flood.iter().for_each(Client::reset_at_end);
    });
}

#[test]
fn ten_thousand_half_requests_hinder_nobody() {
    let claim = Claim::of(FLOOD);
    play(&Setting::new(), |world| {
        let flood = world.while_looked_up(|| flood(world.address(), claim.count(), &halves()));
        are_held(world, &flood);
    });
}

/// All of the flood waits in the daemon, and everything else goes on.
fn are_held(world: &World, flood: &[Client]) {
    world.while_looked_up(|| {
        wait_until("the daemon to hold the whole flood", || {
            world.count_connections() + dropped_by_the_kernel() >= flood.len()
        });
    });
    world.look_up_residents();
    let node = world.register(Alive2::new("amidst"));
    world.wait_until_listed([&node]);
    assert!(flood.iter().all(Client::is_open), "there is room for all, and yet some were closed");
}

/// Connections that the kernel of this host has not handed to the daemon, because too many waited to be accepted. Their
/// clients do not know.
fn dropped_by_the_kernel() -> usize {
    let text =
        std::fs::read_to_string("/proc/thread-self/net/netstat").expect("the counters of this network");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (rows.next().expect("a row of names"), rows.next().expect("a row of values"));
    let mut columns = names.split(' ').zip(values.split(' '));
    let dropped = columns.find_map(|(name, value)| (name == "ListenDrops").then_some(value));
    dropped.expect("a counter of the kernel").parse().expect("a number")
}

#[test]
fn idle_connections_beyond_the_descriptors_go_oldest_first_and_never_a_node() {
    play(&Setting::new().descriptors(FEW), |world| {
        let nodes: Vec<_> = (0..FEW / 4).map(|n| world.register(Alive2::new(format!("node{n}")))).collect();
        let idle: Vec<_> = (0..4 * FEW)
            .map(|_| {
                let client = world.send(&wire::header(7));
                // Answered after the one before it was accepted, so that they are accepted one by one.
                world.look_up_residents();
                client
            })
            .collect();
        wait_until("the daemon to close idle connections", || !idle[0].is_open());
        let first_open = idle.iter().position(Client::is_open).expect("some are left");
        assert!(idle[first_open..].iter().all(Client::is_open), "a newer one was closed before an older one");
        assert!(idle.len() - first_open > FEW / 8, "only {} are left", idle.len() - first_open);
        nodes.iter().for_each(|node| world.look_up(&node.request));
        world.wait_until_listed(&nodes);
        // An idle connection gives way to a node as well.
        let newcomer = world.register(Alive2::new("late"));
        world.look_up(&newcomer.request);
    });
}

#[test]
fn a_flood_beyond_the_descriptors_takes_no_place_from_a_node() {
    flood_beyond(&Setting::new().descriptors(FEW));
}

#[test]
fn a_flood_beyond_the_descriptors_on_several_threads_takes_no_place_from_a_node() {
    // Nodes and idle connections may be those of different threads.
    flood_beyond(&Setting::new().descriptors(FEW).threads(3));
}

fn flood_beyond(setting: &Setting) {
    let claim = Claim::of(20 * FEW);
    play(setting, |world| {
        let fill = |label: &str| {
            let register = |n| world.try_register(Alive2::new(format!("{label}{n}"))).ok();
            (0..FEW).map_while(register).collect::<Vec<_>>()
        };
        let undisturbed = fill("undisturbed");
        undisturbed.iter().for_each(|node| world.look_up(&node.request));
        let capacity = undisturbed.len();
        drop(undisturbed);
        world.wait_until_listed([]);
        let mut idle = world.while_looked_up(|| flood(world.address(), claim.count() / 2, &halves()));
        // All at once, which is when the daemon's threads help each other.
        idle.extend(world.while_stopped(|| flood(world.address(), claim.count() / 2, &halves())));
        let amidst = fill("amidst");
        assert_eq!(amidst.len(), capacity, "idle connections must give way to nodes");
        world.while_looked_up(|| amidst.iter().for_each(|node| world.look_up(&node.request)));
        world.wait_until_listed(&amidst);
        drop(idle);
    });
}
