//! Registrations of a name that somebody has.

use crate::budget::Claim;
use crate::client::{Client, Verdict};
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Setting, play};

/// Duplicates that come at once.
const FLOOD: usize = 600;

#[test]
fn a_refusal_that_cannot_be_delivered_does_not_end_the_holder() {
    play(&Setting::new(), |world| {
        for _ in 0..20 {
            // The daemon reads the request, and finds nobody to tell that it is refused.
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
    let claim = Claim::of(FLOOD);
    play(&Setting::new(), |world| {
        let duplicates: Vec<Client> = world.while_looked_up(|| {
            // All of them wait when the daemon goes on.
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
    let claim = Claim::of(FLOOD);
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
