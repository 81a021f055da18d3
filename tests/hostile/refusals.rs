//! Refused registrations: the refusal, the holder that keeps the name, and the clients that stay connected, as with
//! stock epmd.

use crate::budget::Claim;
use crate::client::{Client, Verdict};
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Node, Setting, World, play};

/// Duplicates sent at once.
const DUPLICATES: usize = 600;
/// Refused registrations kept open.
const REFUSED: usize = 5_000;
/// The daemon's descriptor limit in tests of descriptor shortage.
const FEW: usize = 128;
/// Clients that send their request in two packets.
const SLOW: usize = 20;

/// Registrations that must fail, as duplicates or because of their name.
fn refused(world: &World, count: usize) -> Vec<Client> {
    (0..count)
        .map(|number| {
            let request = if number % 500 == 0 { Alive2::new("alpha") } else { Alive2::new(b"\xff") };
            let client = world.send(&request.bytes());
            assert_eq!(client.verdict(), Verdict::Refused);
            client
        })
        .collect()
}

/// Checks that others are served: lookups, requests in two packets, and registrations.
fn others_are_served(world: &World) {
    world.look_up_residents();
    let whole = wire::port2("alpha");
    let expected = world.ask(&whole);
    let slow: Vec<Client> = (0..SLOW).map(|_| world.send(&whole[..4])).collect();
    world.look_up_residents();
    for client in slow {
        assert!(client.send(&whole[4..]), "closed before its request was complete");
        assert_eq!(client.answer(), expected);
    }
    let nodes: Vec<Node> = (0..SLOW).map(|n| world.register(Alive2::new(format!("node{n}")))).collect();
    nodes.iter().for_each(|node| world.look_up(&node.request));
    world.wait_until_listed(&nodes);
}

#[test]
fn thousands_of_refused_registrations_stay_open_and_others_are_served() {
    let claim = Claim::of(REFUSED);
    play(&Setting::new(), |world| {
        let refused = world.while_looked_up(|| refused(world, claim.count()));
        others_are_served(world);
        assert!(refused.iter().all(Client::is_open), "some were closed although there is room for all");
    });
}

#[test]
fn others_are_served_with_more_refused_registrations_than_descriptors() {
    let claim = Claim::of(4 * FEW);
    play(&Setting::new().descriptors(FEW), |world| {
        let refused = world.while_looked_up(|| refused(world, claim.count()));
        others_are_served(world);
        // The oldest were closed to make room.
        let first_open = refused.iter().position(Client::is_open).expect("some are open");
        assert!(first_open > 0 && refused[first_open..].iter().all(Client::is_open));
    });
}

#[test]
fn others_are_served_with_more_refused_registrations_than_descriptors_on_several_threads() {
    let claim = Claim::of(4 * FEW);
    play(&Setting::new().descriptors(FEW).threads(3), |world| {
        // All at once, so that the daemon's threads share the load.
        let refused: Vec<Client> = world.while_stopped(|| {
            (0..claim.count()).map(|_| world.send(&Alive2::new(b"\xff").bytes())).collect()
        });
        assert!(refused.iter().all(|client| client.verdict() == Verdict::Refused));
        others_are_served(world);
        drop(refused);
    });
}

#[test]
fn a_refusal_that_cannot_be_delivered_does_not_end_the_holder() {
    play(&Setting::new(), |world| {
        for _ in 0..20 {
            // The daemon reads the request and cannot deliver the refusal.
            world.while_stopped(|| {
                for resident in world.residents() {
                    let client = world.send(&resident.request.bytes());
                    client.reset_at_end();
                }
            });
            world.look_up_residents();
            world.wait_until_listed([]);
        }
    });
}

#[test]
fn hundreds_of_duplicates_at_once_are_all_refused_and_stay_open() {
    let claim = Claim::of(DUPLICATES);
    play(&Setting::new(), |world| {
        let duplicates: Vec<Client> = world.while_looked_up(|| {
            // All of them are pending when the daemon resumes.
            let duplicates: Vec<Client> = world.while_stopped(|| {
                (0..claim.count()).map(|n| world.send(&wire::alive2(["alpha", "beta"][n % 2]))).collect()
            });
            for duplicate in &duplicates {
                assert_eq!(duplicate.verdict(), Verdict::Refused);
            }
            duplicates
        });
        world.look_up_residents();
        world.wait_until_listed([]);
        assert!(duplicates.iter().all(Client::is_open), "stock epmd leaves a refused connection open");
    });
}

#[test]
fn the_holder_leaves_amid_a_flood_of_duplicates_and_exactly_one_succeeds_it() {
    let claim = Claim::of(DUPLICATES);
    play(&Setting::new(), |world| {
        for round in 0..3 {
            let name = format!("wanted{round}");
            let holder = world.register(Alive2::new(&name).port(1));
            let heirs: Vec<Client> = world.while_stopped(|| {
                let flood = |count| (0..count).map(|_| world.send(&Alive2::new(&name).port(2).bytes()));
                let mut heirs: Vec<Client> = flood(claim.count() / 2).collect();
                drop(holder);
                heirs.extend(flood(claim.count() / 2));
                heirs
            });
            let accepted = heirs.iter().filter(|heir| matches!(heir.verdict(), Verdict::Accepted(_))).count();
            assert_eq!(accepted, 1);
            world.look_up(&Alive2::new(&name).port(2));
            drop(heirs);
            wait_until("the name to be free", || world.ask(&wire::port2(&name)) == b"w\x01");
        }
    });
}
