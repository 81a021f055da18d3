//! Clients that ask for a long list and do not read it.

use std::net::SocketAddr;

use crate::budget::Claim;
use crate::client::Client;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{LATE_DESCRIPTORS, Node, Setting, World, play};

/// Nodes in the list.
const NODES: usize = 5_000;
/// Characters of each name: with them, the list is longer than 1 MiB.
const NAME: usize = 200;
/// Clients that do not read.
const READERS: usize = 300;
/// What the daemon may need for all of them together, in KiB; a list for each would be three hundred times as much
/// as this at least.
const MEMORY: usize = 4 * 1024;

/// Fills the registry.
fn register_many(world: &World, count: usize) -> Vec<Node> {
    (0..count).map(|n| world.register(Alive2::new(format!("{n:0>NAME$}")))).collect()
}

/// Asks for the list and reads nothing.
fn ask_only(daemon: SocketAddr) -> Client {
    Client::sending(daemon, &wire::names())
}

/// Clients that all wait in the daemon for their own reading, beside the connections that it holds.
fn readers(world: &World, held: usize, count: usize) -> Vec<Client> {
    let readers: Vec<Client> = (0..count).map(|_| ask_only(world.address())).collect();
    wait_until("all readers to be waited for", || world.count_connections() >= held + count);
    readers
}

/// Waits until the daemon holds no reader any more.
fn wait_until_let_go(world: &World, nodes: &[Node]) {
    wait_until("the readers to be let go", || world.count_connections() <= nodes.len() + LATE_DESCRIPTORS);
}

#[test]
fn clients_that_never_read_a_long_list_delay_nobody_and_cost_no_memory() {
    let claim = Claim::of(NODES + READERS);
    play(&Setting::new().ordinary_packets(), |world| {
        let nodes = register_many(world, claim.count() - READERS);
        let list = world.ask(&wire::names());
        assert!(list.len() > nodes.len() * NAME);
        let first = readers(world, nodes.len(), 1);
        let before = world.resident_memory();
        let readers = world.while_looked_up(|| readers(world, nodes.len() + 1, READERS - 1));
        let grown = world.resident_memory().saturating_sub(before);
        assert!(grown < MEMORY, "{} readers cost {grown} KiB", readers.len());
        world.look_up_residents();
        nodes.iter().step_by(50).for_each(|node| world.look_up(&node.request));
        assert!(world.ask(&wire::names()) == list);
        // Who has waited long reads all of it.
        assert!(first[0].answer() == list);
        assert!(readers[0].answer() == list);
        // And who does not is nothing to hold a node up.
        world.while_looked_up(|| drop((readers, nodes)));
    });
}

#[test]
fn clients_that_read_byte_by_byte_get_the_whole_list() {
    let claim = Claim::of(NODES);
    play(&Setting::new().ordinary_packets(), |world| {
        let nodes = register_many(world, claim.count());
        let list = world.ask(&wire::names());
        let readers = readers(world, nodes.len(), 2);
        world.while_looked_up(|| {
            for reader in &readers {
                let slowly = reader.read_singly(list.len());
                assert!(slowly == list, "{} bytes of {}", slowly.len(), list.len());
                assert_eq!(reader.answer(), b"");
            }
        });
        drop(nodes);
    });
}

#[test]
fn a_client_that_has_said_its_last_and_does_not_read_keeps_nobody_busy() {
    let claim = Claim::of(NODES);
    play(&Setting::new().ordinary_packets(), |world| {
        let nodes = register_many(world, claim.count());
        let readers = readers(world, nodes.len(), 4);
        readers.iter().for_each(Client::half_close);
        // Once might be by chance.
        let mut restful = 0;
        wait_until("the daemon to rest", || {
            restful = if world.is_at_rest() { restful + 1 } else { 0 };
            restful == 30
        });
        drop((readers, nodes));
    });
}

#[test]
fn clients_that_leave_in_the_middle_of_a_long_list_delay_nobody() {
    let claim = Claim::of(NODES);
    play(&Setting::new().ordinary_packets(), |world| {
        let nodes = register_many(world, claim.count());
        world.while_looked_up(|| {
            for round in 0..3 {
                let readers = readers(world, nodes.len(), 100);
                for (number, reader) in readers.iter().enumerate() {
                    assert_eq!(reader.read(number * 100).len(), number * 100);
                    match (number + round) % 3 {
                        0 => reader.reset_at_end(),
                        1 => reader.half_close(),
                        _ => {}
                    }
                }
                drop(readers);
                wait_until_let_go(world, &nodes);
            }
        });
        world.look_up(&nodes[0].request);
        drop(nodes);
    });
}

#[test]
fn a_client_that_never_reads_is_closed_after_the_packet_timeout() {
    let claim = Claim::of(NODES);
    play(&Setting::new().ordinary_packets().args(&["-packet_timeout", "1"]), |world| {
        let nodes = register_many(world, claim.count());
        let readers = readers(world, nodes.len(), 20);
        wait_until_let_go(world, &nodes);
        drop((readers, nodes));
    });
}
