//! Random and malformed requests, and their log lines.

use std::time::Instant;

use crate::chance::Chance;
use crate::client::Client;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play};

/// Connections per kind of garbage, divided among the threads.
const CONNECTIONS: usize = 12_000;
/// Threads that send it.
const THREADS: usize = 4;
/// Longer than the longest request, so that it is read in several pieces.
const LONGEST: usize = 9_000;

/// Bad requests, sent one by one.
const BAD: usize = 10_000;
/// The number of lines that at most four threads may log in a second, including notes about suppressed ones.
const LINES_PER_SECOND: u64 = 4 * 40;

#[test]
fn random_bytes_in_random_pieces_are_harmless() {
    play(&Setting::new(), |world| {
        send_all(world, |chance| {
            // Half of them are short, to hit the length and the opcode.
            let longest = *chance.pick(&[4, 40, 400, LONGEST]);
            let length = chance.below(longest) + 1;
            chance.bytes(length)
        });
    });
}

#[test]
fn random_requests_of_the_right_length_are_harmless() {
    play(&Setting::new(), |world| {
        send_all(world, |chance| {
            let opcode = *chance.pick(b"xzndks\0\xff");
            let length = chance.below(3_057);
            wire::packet([vec![opcode], chance.bytes(length)].concat())
        });
    });
}

#[test]
fn slightly_corrupted_requests_are_harmless() {
    play(&Setting::new(), |world| {
        let requests = [
            wire::alive2("mutant"),
            Alive2::new("mutant-中").extra(b"extra").trailing(b"trailing").bytes(),
            Alive2::new("m".repeat(255)).highest(5).extra([0xff; 1_020]).bytes(),
            wire::port2("alpha"),
            wire::port2("nobody\0"),
            wire::names(),
            wire::dump(),
            wire::kill(),
            wire::stop("alpha"),
        ];
        send_all(world, |chance| {
            let mut request = chance.pick(&requests).clone();
            for _ in 0..chance.below(4) {
                bend(chance, &mut request);
            }
            request
        });
    });
}

/// Makes one small change: to a byte, a bit or a length, or by truncation or insertion.
fn bend(chance: &mut Chance, request: &mut Vec<u8>) {
    let at = chance.below(request.len().max(1)).min(request.len().saturating_sub(1));
    match chance.below(7) {
        _ if request.is_empty() => request.push(0),
        0 => request[at] = chance.bytes(1)[0],
        1 => request[at] ^= 1 << chance.below(8),
        2 => request.truncate(at),
        3 => request.insert(at, chance.bytes(1)[0]),
        4 => {
            let length = chance.below(20);
            request.extend(chance.bytes(length));
        }
        5 => {
            let again = request[at..].to_vec();
            request.extend(again);
        }
        // The length prefix is adjusted to the earlier changes.
        _ => {
            let body = request.get(2..).unwrap_or_default().to_vec();
            *request = wire::packet(body);
        }
    }
}

/// Sends requests made by `make`, each on a new connection, from several threads, while lookups are answered.
fn send_all(world: &World, make: impl Fn(&mut Chance) -> Vec<u8> + Sync) {
    let mut chance = Chance::printed();
    world.while_looked_up(|| {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                let (mut chance, make) = (chance.split(), &make);
                scope.spawn(move || {
                    for _ in 0..CONNECTIONS / THREADS {
                        let bytes = make(&mut chance);
                        send_in_pieces(&mut chance, &world.dial(), &bytes);
                    }
                });
            }
        });
    });
}

/// Sends in pieces of random sizes and ends the connection in a random manner.
fn send_in_pieces(chance: &mut Chance, client: &Client, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = chance.below(rest.len()) + 1;
        let (piece, others) = rest.split_at(if chance.below(3) == 0 { rest.len() } else { size });
        if !client.send(piece) {
            return;
        }
        rest = others;
    }
    match chance.below(4) {
        0 => client.reset_at_end(),
        1 => {
            client.half_close();
            let _ = client.answer();
        }
        _ => {}
    }
}

#[test]
fn ten_thousand_bad_requests_log_few_lines_and_the_number_suppressed() {
    play(&Setting::new(), |world| {
        let bad = [
            wire::packet("?"),
            wire::header(0),
            wire::header(u16::MAX),
            wire::packet("zwith\0nul"),
            wire::packet("x"),
            wire::stop("alpha"),
            wire::kill(),
            [wire::names(), wire::names()].concat(),
        ];
        let start = Instant::now();
        for number in 0..BAD {
            let answer = world.ask(&bad[number % bad.len()]);
            assert!(matches!(answer.as_slice(), b"" | b"NO"), "{}", answer.escape_ascii());
        }
        // Refusals and connections that end before a request are also logged.
        for _ in 0..BAD / 100 {
            drop(world.dial());
            let _ = world.send(&Alive2::new(b"\xff").bytes()).verdict();
        }
        // The first line of the next second reports the number suppressed before it.
        wait_until("the log to say how many lines were left out", || {
            world.ask(&bad[0]);
            world.log().contains("lines like the next were left out")
        });
        let lines = world.log().lines().count();
        let bound = LINES_PER_SECOND * (start.elapsed().as_secs() + 2);
        assert!(u64::try_from(lines).expect("64 bits") <= bound, "{lines} lines, more than {bound}");
        assert!(world.log().contains("unknown request 63"), "the first lines must be logged");
    });
}
