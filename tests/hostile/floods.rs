//! Floods of connections that never complete a request.

use std::net::SocketAddr;

use crate::budget::Claim;
use crate::client::Client;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play};

/// Connections of a flood.
const FLOOD: usize = 10_000;
/// Threads that open them.
const THREADS: usize = 4;
/// The daemon's descriptor limit in tests of descriptor shortage.
const FEW: usize = 128;

/// Incomplete requests of every kind.
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

/// Opens `count` connections from several threads, each of which sends the next one of `pieces`.
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
        threads.into_iter().flat_map(|thread| thread.join().expect("joining a thread")).collect()
    })
}

#[test]
fn ten_thousand_silent_connections_do_not_affect_others() {
    let claim = Claim::of(FLOOD);
    play(&Setting::new(), |world| {
        let flood = world.while_looked_up(|| flood(world.address(), claim.count(), &[Vec::new()]));
        are_held(world, &flood);
        // If a flood makes the kernel send SYN cookies, it may take the last packets of an orderly close for the first
        // ones of a new connection, which then has no client.
        flood.iter().for_each(Client::reset_at_end);
    });
}

#[test]
fn ten_thousand_half_requests_do_not_affect_others() {
    let claim = Claim::of(FLOOD);
    play(&Setting::new(), |world| {
        let flood = world.while_looked_up(|| flood(world.address(), claim.count(), &halves()));
        are_held(world, &flood);
    });
}

/// The daemon holds all connections of the flood and keeps serving others.
fn are_held(world: &World, flood: &[Client]) {
    world.while_looked_up(|| {
        wait_until("the daemon to hold the whole flood", || {
            world.count_connections() + dropped_by_the_kernel() >= flood.len()
        });
    });
    world.look_up_residents();
    let node = world.register(Alive2::new("amidst"));
    world.wait_until_listed([&node]);
    assert!(flood.iter().all(Client::is_open), "some were closed although there is room for all");
}

/// Connections that the kernel dropped because the accept queue was full. Their clients do not notice.
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
fn the_oldest_idle_connections_are_closed_for_descriptors_and_never_a_node() {
    play(&Setting::new().descriptors(FEW), |world| {
        let nodes: Vec<_> = (0..FEW / 4).map(|n| world.register(Alive2::new(format!("node{n}")))).collect();
        let idle: Vec<_> = (0..4 * FEW)
            .map(|_| {
                let client = world.send(&wire::header(7));
                // A lookup after each one ensures that they are accepted one by one.
                world.look_up_residents();
                client
            })
            .collect();
        wait_until("the daemon to close idle connections", || !idle[0].is_open());
        let first_open = idle.iter().position(Client::is_open).expect("some are open");
        assert!(idle[first_open..].iter().all(Client::is_open), "a newer one was closed before an older one");
        assert!(idle.len() - first_open > FEW / 8, "only {} are left", idle.len() - first_open);
        nodes.iter().for_each(|node| world.look_up(&node.request));
        world.wait_until_listed(&nodes);
        // A registration also closes an idle connection.
        let newcomer = world.register(Alive2::new("late"));
        world.look_up(&newcomer.request);
    });
}

#[test]
fn a_flood_beyond_the_descriptors_displaces_no_node() {
    flood_beyond(&Setting::new().descriptors(FEW));
}

#[test]
fn a_flood_beyond_the_descriptors_on_several_threads_displaces_no_node() {
    // Nodes and idle connections may belong to different threads.
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
        // All at once, because that is when the daemon's threads share the load.
        idle.extend(world.while_stopped(|| flood(world.address(), claim.count() / 2, &halves())));
        let amidst = fill("amidst");
        assert_eq!(amidst.len(), capacity, "idle connections must be closed for nodes");
        world.while_looked_up(|| amidst.iter().for_each(|node| world.look_up(&node.request)));
        world.wait_until_listed(&amidst);
        drop(idle);
    });
}
