//! What bad requests leave in the log.

use std::time::Instant;

use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::world::{Setting, play};

/// Bad requests.
const BAD: usize = 10_000;
/// Lines that each of at most four threads may write in a second, and the notes of what was left out.
const LINES_PER_SECOND: u64 = 4 * 40;

#[test]
fn ten_thousand_bad_requests_write_few_lines_and_say_how_many_are_left_out() {
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
        // Refusals are logged as well, and so are connections that end before a request.
        for _ in 0..BAD / 100 {
            drop(world.dial());
            let _ = world.send(&Alive2::new(b"\xff").bytes()).verdict();
        }
        // The first line of the next second says how many came before it.
        wait_until("the log to say how many lines were left out", || {
            world.ask(&bad[0]);
            world.log().contains("lines like the next were left out")
        });
        let lines = world.log().lines().count();
        let bound = LINES_PER_SECOND * (start.elapsed().as_secs() + 2);
        assert!(u64::try_from(lines).expect("64 bits") <= bound, "{lines} lines, more than {bound}");
        assert!(world.log().contains("unknown request 63"), "the first ones are written");
    });
}
