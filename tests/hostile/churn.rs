//! Nodes that register and leave as fast as they can.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::{Client, Verdict};
use crate::wire::{self, Alive2};
use crate::world::{Node, Setting, World, play, without_new_processes};

/// Threads that register and leave.
const THREADS: usize = 8;
/// Registrations per thread.
const LIVES: usize = 1_000;
/// The port on which the nodes listen.
const PORT: u16 = 45_000;
/// Names that all threads compete for; fewer than threads.
const CONTESTED: usize = 3;

/// Ends a node's connection in one of several manners.
fn leave(node: Node, manner: usize) {
    match manner % 4 {
        // C nodes do this unintentionally: they leave part of the response unread.
        0 => node.client.reset_at_end(),
        1 => node.client.half_close(),
        // Data on a registered connection also ends the registration.
        2 => assert!(node.client.send(b"\0")),
        _ => {}
    }
    drop(node);
}

#[test]
fn a_name_is_free_as_soon_as_its_node_is_gone() {
    come_and_go(&Setting::new());
}

#[test]
fn a_name_held_by_another_thread_is_free_as_soon_as_its_node_is_gone() {
    come_and_go(&Setting::new().threads(3));
}

fn come_and_go(setting: &Setting) {
    play(setting, |world| {
        // A restarted node may listen on its predecessor's port before it registers.
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a free port");
        let live_all = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..THREADS).map(|thread| scope.spawn(move || live(world, thread))).collect();
                threads.into_iter().map(|thread| thread.join().expect("joining a thread")).collect()
            })
        };
        let survivors: Vec<Node> = without_new_processes(|| world.while_looked_up(live_all));
        survivors.iter().for_each(|node| world.look_up(&node.request));
        // They registered in any order, so they are looked up one by one.
        let listing = world.ask(&wire::names());
        let lines = listing.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(lines, world.residents().len() + survivors.len(), "{}", listing.escape_ascii());
    });
}

/// Registers the same name repeatedly, each time right after the previous node has gone.
fn live(world: &World, thread: usize) -> Node {
    let name = format!("phoenix{thread}");
    let mut creations = HashSet::new();
    for life in 0..LIVES {
        let node = world.register(Alive2::new(&name).port(PORT));
        assert!(creations.insert(node.creation), "{name} had creation {} before", node.creation);
        leave(node, life);
    }
    world.register(Alive2::new(&name).port(PORT))
}

#[test]
fn a_contested_name_has_one_node_at_a_time() {
    play(&Setting::new().threads(3), |world| {
        let names: Vec<Contested> = (0..CONTESTED).map(|_| Contested::default()).collect();
        world.while_looked_up(|| {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let names = &names;
                    scope.spawn(move || contest(world, thread, names));
                }
            });
        });
        for (number, name) in names.iter().enumerate() {
            let lives = name.creations.lock().expect("no thread has panicked").len();
            assert!(lives > 0, "name {number} was never registered");
        }
    });
}

/// The state of a contested name.
#[derive(Debug, Default)]
struct Contested {
    nodes: AtomicUsize,
    creations: Mutex<HashSet<u32>>,
}

/// Registers the names one after the other, and gives each up again.
fn contest(world: &World, thread: usize, names: &[Contested]) {
    for time in 0..LIVES {
        let number = (thread + time) % names.len();
        let name = &names[number];
        match world.try_register(Alive2::new(format!("contested{number}"))) {
            Ok(node) => {
                assert_eq!(name.nodes.fetch_add(1, Ordering::SeqCst), 0, "two nodes hold name {number}");
                let creation = node.creation;
                let new = name.creations.lock().expect("no thread has panicked").insert(creation);
                assert!(new, "creation {creation} was given twice");
                name.nodes.fetch_sub(1, Ordering::SeqCst);
                leave(node, time);
            }
            Err(verdict) => assert_eq!(verdict, Verdict::Refused),
        }
    }
}

#[test]
fn hundreds_of_nodes_leaving_at_once_leave_nothing_behind() {
    play(&Setting::new(), |world| {
        for round in 0..5 {
            let nodes: Vec<Node> =
                (0..400).map(|n| world.register(Alive2::new(format!("n{n}")).port(1_000 + round))).collect();
            world.while_looked_up(|| {
                let clients: Vec<Client> = nodes.into_iter().map(|node| node.client).collect();
                clients.iter().step_by(2).for_each(Client::reset_at_end);
                drop(clients);
                world.wait_until_listed([]);
            });
        }
    });
}
