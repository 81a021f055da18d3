//! Clients that always have something to say, and never finish.

use std::time::Duration;

use crate::client::Client;
use crate::wire::{self, Alive2};
use crate::world::{Setting, play};

/// Between two bytes: often enough to be no silence by any packet timeout.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn a_byte_now_and_then_does_not_prolong_the_time_for_a_request() {
    play(&Setting::new().args(&["-packet_timeout", "1"]), |world| {
        let requests = [
            // At this pace each of these takes many times the packet timeout.
            [wire::header(3_057), vec![b'z'; 3_057]].concat(),
            wire::port2("a".repeat(254)),
            Alive2::new("dripping").extra([7; 1_000]).bytes(),
            [wire::header(3_057), vec![b'n'; 3_057]].concat(),
        ];
        let drips: Vec<Client> = requests.iter().map(|_| world.dial()).collect();
        // Others that are silent, to see that one does not prolong another's time either.
        let silent: Vec<Client> = (0..5).map(|_| world.dial()).collect();
        let longest = requests.iter().map(Vec::len).max().unwrap_or_default();
        for position in 0..longest {
            let open = drips.iter().zip(&requests).filter(|(drip, _)| drip.is_open());
            let mut any = false;
            for (drip, request) in open {
                let byte = request.get(position..=position);
                drip.send(byte.expect("closed before its request was complete"));
                any = true;
            }
            if !any {
                break;
            }
            // Whichever comes first: the pause or the end.
            drips[0].stays_silent_for(PAUSE);
            world.look_up_residents();
        }
        for client in drips.iter().chain(&silent) {
            assert_eq!(client.answer(), b"", "closed without an answer");
        }
    });
}

#[test]
fn a_request_in_single_bytes_is_answered_while_there_is_time() {
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
