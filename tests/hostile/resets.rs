//! Peers that reset the connection, at every stage.

use crate::client::{Client, Verdict};
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play};

/// Resets per stage.
const TIMES: usize = 3_000;
/// Threads that share them.
const THREADS: usize = 4;

/// Repeatedly does something on a new connection and resets it.
fn reset_after(world: &World, what: impl Fn(&Client, usize) + Sync) {
    world.while_looked_up(|| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let what = &what;
                scope.spawn(move || {
                    for number in (thread..TIMES).step_by(THREADS) {
                        let client = world.dial();
                        what(&client, number);
                        client.reset_at_end();
                    }
                });
            }
        });
    });
}

#[test]
fn resets_right_after_connecting_are_harmless() {
    play(&Setting::new(), |world| reset_after(world, |_, _| {}));
}

#[test]
fn resets_after_half_a_request_are_harmless() {
    let halves = crate::floods::halves();
    play(&Setting::new(), |world| {
        reset_after(world, |client, number| {
            client.send(&halves[number % halves.len()]);
        });
    });
}

#[test]
fn resets_with_an_unread_response_are_harmless() {
    let questions = [wire::port2("alpha"), wire::names(), wire::dump(), wire::kill(), wire::port2("nobody")];
    play(&Setting::new(), |world| {
        reset_after(world, |client, number| {
            client.send(&questions[number % questions.len()]);
        });
    });
}

#[test]
fn resets_with_an_unread_registration_response_unregister() {
    play(&Setting::new(), |world| {
        reset_after(world, |client, number| {
            client.send(&wire::alive2(format!("hasty{}", number % 100)));
        });
    });
}

#[test]
fn resets_after_a_registration_unregister() {
    play(&Setting::new(), |world| {
        reset_after(world, |client, number| {
            client.send(&wire::alive2(format!("brief{number}")));
            assert!(matches!(client.verdict(), Verdict::Accepted(_)));
        });
    });
}

#[test]
fn resets_after_a_refused_registration_are_harmless() {
    play(&Setting::new(), |world| {
        reset_after(world, |client, number| {
            // Refused for its name, or as a duplicate, which takes longer because the holder is checked.
            let request = if number % 50 == 0 { Alive2::new("alpha") } else { Alive2::new(b"\xff") };
            client.send(&request.bytes());
            if number % 100 < 50 {
                assert_eq!(client.verdict(), Verdict::Refused);
            }
        });
    });
}

#[test]
fn resets_before_accept_are_harmless() {
    let requests =
        [Vec::new(), wire::alive2("ghost"), wire::alive2("alpha"), wire::port2("alpha"), wire::names()];
    play(&Setting::new(), |world| {
        for _ in 0..5 {
            world.while_stopped(|| {
                for number in 0..200 {
                    let client = world.send(&requests[number % requests.len()]);
                    client.reset_at_end();
                }
            });
            world.look_up_residents();
        }
    });
}
