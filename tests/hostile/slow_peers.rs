//! Clients that are slow to read a long list or to send a request.

use std::net::SocketAddr;
use std::time::Duration;

use crate::budget::Claim;
use crate::client::Client;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{LATE_DESCRIPTORS, Node, Setting, World, play};

/// Nodes in the list.
const NODES: usize = 5_000;
/// Characters of each name, which make the list longer than 1 MiB.
const NAME: usize = 200;
/// Clients that do not read.
const READERS: usize = 300;
/// The memory allowed for all of them together, in KiB. A copy of the list for each would need many times as much.
const MEMORY: usize = 4 * 1024;

/// Pause between two bytes of a slow sender: far shorter than the packet timeout.
const PAUSE: Duration = Duration::from_millis(50);

/// Fills the registry.
fn register_many(world: &World, count: usize) -> Vec<Node> {
    (0..count).map(|n| world.register(Alive2::new(format!("{n:0>NAME$}")))).collect()
}

/// Requests the list and reads nothing.
fn ask_only(daemon: SocketAddr) -> Client {
    Client::sending(daemon, &wire::names())
}

/// Clients that have requested the list and do not read it, in addition to the connections already held.
fn readers(world: &World, held: usize, count: usize) -> Vec<Client> {
    let readers: Vec<Client> = (0..count).map(|_| ask_only(world.address())).collect();
    wait_until("all readers to be waited for", || world.count_connections() >= held + count);
    readers
}

/// Waits until the daemon has closed all readers.
fn wait_until_let_go(world: &World, nodes: &[Node]) {
    wait_until("the readers to be let go", || world.count_connections() <= nodes.len() + LATE_DESCRIPTORS);
}

#[test]
fn clients_that_never_read_a_long_list_cost_no_memory_and_delay_no_one() {
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
        // Clients that start reading late get the whole list.
        assert!(first[0].answer() == list);
        assert!(readers[0].answer() == list);
        // Clients that never read do not affect the nodes.
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
fn a_half_closed_client_that_does_not_read_causes_no_busy_loop() {
    let claim = Claim::of(NODES);
    play(&Setting::new().ordinary_packets(), |world| {
        let nodes = register_many(world, claim.count());
        let readers = readers(world, nodes.len(), 4);
        readers.iter().for_each(Client::half_close);
        world.wait_until_at_rest();
        drop((readers, nodes));
    });
}

#[test]
fn clients_that_leave_in_the_middle_of_a_long_list_delay_no_one() {
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
    play(&Setting::new().ordinary_packets().args(&["-packet_timeout", "3"]), |world| {
        let nodes = register_many(world, claim.count());
        let readers = readers(world, nodes.len(), 20);
        wait_until_let_go(world, &nodes);
        drop((readers, nodes));
    });
}

#[test]
fn single_bytes_do_not_extend_the_request_timeout() {
    play(&Setting::new().args(&["-packet_timeout", "1"]), |world| {
        let requests = [
            // At this rate each of these takes many times the packet timeout.
            [wire::header(3_057), vec![b'z'; 3_057]].concat(),
            wire::port2("a".repeat(254)),
            Alive2::new("dripping").extra([7; 1_000]).bytes(),
            [wire::header(3_057), vec![b'n'; 3_057]].concat(),
        ];
        let drips: Vec<Client> = requests.iter().map(|_| world.dial()).collect();
        // Silent clients as well, to show that one client does not extend another's timeout.
        let silent: Vec<Client> = (0..5).map(|_| world.dial()).collect();
        for position in 0.. {
            let mut open = drips.iter().zip(&requests).filter(|(drip, _)| drip.is_open()).peekable();
            let Some((one, _)) = open.peek() else { break };
            let one = *one;
            for (drip, request) in open {
                let byte = request.get(position..=position);
                drip.send(byte.expect("closed before its request was complete"));
            }
            // Waits for the pause or for the end of the connection.
            one.stays_silent_for(PAUSE);
            world.look_up_residents();
        }
        for client in drips.iter().chain(&silent) {
            assert_eq!(client.answer(), b"", "expected a close without a response");
        }
    });
}

#[test]
fn a_request_in_single_bytes_is_answered_within_the_timeout() {
    play(&Setting::new(), |world| {
        let whole = wire::port2(&world.residents()[4].request.name);
        let client = world.dial();
        for byte in &whole {
            assert!(client.send(&[*byte]));
            world.look_up_residents();
        }
        assert_eq!(client.answer(), world.ask(&whole));
    });
}
