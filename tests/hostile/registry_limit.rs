//! Registries as large as the descriptor limit allows.

use crate::budget::{Claim, descriptor_limit};
use crate::client::{Client, Verdict};
use crate::companion::{Companion, crowd_node};
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Node, Setting, World, play, without_new_processes};

/// The number of nodes that must fit, and the descriptors available.
const MOST: (usize, usize) = (19_000, 20_000);
/// Times that a node of a full registry reconnects.
const RETURNS: usize = 300;

#[test]
fn a_full_registry_of_128_descriptors_answers_and_accepts_returning_nodes() {
    fill(128, 85);
}

#[test]
fn a_full_registry_of_256_descriptors_answers_and_accepts_returning_nodes() {
    fill(256, 180);
}

/// Fills the registry of a daemon with `limit` descriptors, which must accept at least `least` nodes.
fn fill(limit: usize, least: usize) {
    play(&Setting::new().descriptors(limit), |world| {
        let mut nodes: Vec<Node> = Vec::new();
        loop {
            match world.try_register(Alive2::new(format!("node{}", nodes.len()))) {
                Ok(node) => nodes.push(node),
                Err(verdict) => {
                    assert_eq!(verdict, Verdict::Closed, "expected a close without a response");
                    break;
                }
            }
            assert!(nodes.len() < limit, "more nodes than descriptors");
        }
        let count = nodes.len() + world.residents().len();
        assert!(count >= least, "only {count} nodes of {limit} descriptors");
        let said = format!("the limit of {count} registered nodes is reached");
        wait_until("the log to say how many there are", || world.log().contains(&said));

        let rejected = |name: &str| world.try_register(Alive2::new(name)).err() == Some(Verdict::Closed);
        assert!((0..10).all(|n| rejected(&format!("more{n}"))));
        all_answered(world, &nodes);

        // A freed slot can be used, and then the registry is full again.
        drop(nodes.remove(nodes.len() / 2));
        world.wait_until_listed(&nodes);
        nodes.push(world.register(Alive2::new("successor")));
        assert!(rejected("more"));
        all_answered(world, &nodes);

        // Duplicates are refused even when the registry is full.
        let duplicate = world.try_register(Alive2::new("alpha"));
        assert_eq!(duplicate.err(), Some(Verdict::Refused));

        // A node that reconnects at once gets its slot back, although no other node could register.
        without_new_processes(|| {
            for time in 0..RETURNS {
                let Node { request, creation, client } = nodes.remove(time % nodes.len());
                drop(client);
                let back = world.register(request);
                assert_ne!(back.creation, creation);
                nodes.push(back);
            }
        });
        all_answered(world, &nodes);

        // So do all of them at once.
        let back: Vec<Node> = without_new_processes(|| {
            let asked: Vec<(Alive2, Client)> = world.while_stopped(|| {
                let requests: Vec<Alive2> = nodes.drain(..).map(|node| node.request).collect();
                requests.into_iter().map(|request| (request.clone(), world.send(&request.bytes()))).collect()
            });
            asked.into_iter().map(|(request, client)| accepted(request, client)).collect()
        });
        all_answered(world, &back);
    });
}

/// The node that sent this request, which must be registered now.
fn accepted(request: Alive2, client: Client) -> Node {
    match client.verdict() {
        Verdict::Accepted(creation) => Node { request, creation, client },
        other => panic!("registering {}: {other:?}", request.name.escape_ascii()),
    }
}

/// Checks that requests in one piece and in two are answered.
fn all_answered(world: &World, nodes: &[Node]) {
    world.look_up_residents();
    nodes.iter().for_each(|node| world.look_up(&node.request));
    world.wait_until_listed(nodes);
    let whole = wire::port2("alpha");
    let halves: Vec<_> = (0..4).map(|_| world.send(&whole[..3])).collect();
    world.look_up_residents();
    for half in halves {
        assert!(half.send(&whole[3..]), "closed before its request was complete");
        assert_eq!(half.answer(), world.ask(&whole));
    }
}

#[test]
fn nineteen_thousand_nodes_are_registered_and_found() {
    let limit = descriptor_limit().min(MOST.1);
    // Most of them are in other processes, because the limit applies per process.
    let elsewhere = limit / 5 * 4;
    let _claim = Claim::of(limit / 5);
    play(&Setting::new().descriptors(limit), |world| {
        let mut crowds = [
            Companion::crowd(world.other_address(1), 0..elsewhere / 2),
            Companion::crowd(world.other_address(2), elsewhere / 2..elsewhere),
        ];
        world.while_looked_up(|| crowds.iter_mut().for_each(Companion::wait_until_registered));
        let here: Vec<Node> =
            (elsewhere..limit).map_while(|number| world.try_register(crowd_node(number)).ok()).collect();
        let count = world.residents().len() + elsewhere + here.len();
        assert!(limit < MOST.1 || count >= MOST.0, "only {count} nodes of {limit} descriptors");
        assert_eq!(world.try_register(Alive2::new("one more")).err(), Some(Verdict::Closed));

        world.look_up_residents();
        (0..elsewhere).step_by(97).for_each(|number| world.look_up(&crowd_node(number)));
        here.iter().step_by(7).for_each(|node| world.look_up(&node.request));
        let listing = world.ask(&wire::names());
        assert_eq!(listing.split(|byte| *byte == b'\n').count() - 1, count, "every node is listed");
        // All leave, some of them at the same time.
        world.while_looked_up(|| {
            crowds.into_iter().for_each(Companion::kill);
            drop(here);
        });
    });
}
