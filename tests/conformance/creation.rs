//! The creation number: one counter per name, initialised from the clock, sent in full or folded to 1..3.

use crate::battery::{Case, case};
use crate::stage::{Stage, now};
use crate::wire::Alive2;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = counting();
    cases.extend(forms());
    cases
}

/// The creation of a registration that ends immediately.
fn once(t: &Stage<'_>, name: &str, highest: u16) -> u32 {
    let node = t.register_as(&Alive2::new(name).highest(highest));
    drop(node.peer);
    t.wait_until_unregistered(name.as_bytes());
    node.creation
}

/// The folded value of a counter that was at `before`, after `steps` more registrations.
fn folded(before: u32, steps: u32) -> u32 {
    (before + steps) % 3 + 1
}

fn note_relation(t: &Stage<'_>, what: &str, relation: &str, holds: bool, values: &[u32]) {
    t.note(&if holds {
        format!("{what}: {relation}")
    } else {
        format!("{what}: not {relation}, {values:?}")
    });
}

fn counting() -> Vec<Case> {
    vec![
        case("a new name starts one after the clock").expect(&["new: now + 1"]).play(|t| {
            let before = now();
            let node = t.register("node");
            let after = now();
            let holds = (before + 1..=after + 1).contains(&node.creation);
            note_relation(t, "new", "now + 1", holds, &[before, node.creation, after]);
        }),
        case("two new names of one second share a creation").expect(&["pair: equal"]).play(|t| {
            // A pair can straddle a second, but not every pair does.
            let pairs: Vec<[u32; 2]> = (0..5)
                .map(|number| ["a", "b"].map(|half| t.register(format!("{half}{number}")).creation))
                .collect();
            let equal = pairs.iter().any(|pair| pair[0] == pair[1]);
            note_relation(t, "pair", "equal", equal, &pairs.concat());
        }),
        case("a name that returns counts one on").expect(&["20 returns: each one more"]).play(|t| {
            let creations: Vec<u32> = (0..20).map(|_| once(t, "node", 6)).collect();
            let holds = creations.windows(2).all(|pair| pair[1] == pair[0] + 1);
            note_relation(t, "20 returns", "each one more", holds, &creations);
        }),
        case("every name has its own counter").expect(&["a: one more each", "b: one more each"]).play(|t| {
            let rounds: Vec<[u32; 2]> = (0..4)
                .map(|round| {
                    let a = once(t, "a", 6);
                    // The other name registers half as often.
                    let b = if round % 2 == 0 { once(t, "b", 6) } else { 0 };
                    [a, b]
                })
                .collect();
            let a: Vec<u32> = rounds.iter().map(|round| round[0]).collect();
            let b: Vec<u32> = rounds.iter().map(|round| round[1]).filter(|&creation| creation != 0).collect();
            for (what, creations) in [("a", a), ("b", b)] {
                let holds = creations.windows(2).all(|pair| pair[1] == pair[0] + 1);
                note_relation(t, what, "one more each", holds, &creations);
            }
        }),
        case("a failed registration does not count")
            .expect(&["after a duplicate: one more", "after bad requests: one more"])
            .play(|t| {
                let refused = |request: Alive2| {
                    let peer = t.dial("refused");
                    peer.send(&request.bytes());
                    peer.all_of(6)
                };
                let node = t.register("node");
                assert_eq!(refused(Alive2::new("node")), b"v\x01\0\0\0c");
                drop(node.peer);
                t.wait_until_unregistered(b"node");
                let second = once(t, "node", 6);
                let holds = second == node.creation + 1;
                note_relation(t, "after a duplicate", "one more", holds, &[node.creation, second]);
                assert_eq!(refused(Alive2::new("node").extra([0; 1021])), b"v\x01\0\0\0c");
                assert_eq!(refused(Alive2::new("node").extra_length(1)), b"");
                let third = once(t, "node", 6);
                note_relation(t, "after bad requests", "one more", third == second + 1, &[second, third]);
            }),
        case("a restarted server starts from the clock again").expect(&["restarted: now + 1"]).play(|t| {
            let creations: Vec<u32> = (0..50).map(|_| once(t, "node", 6)).collect();
            t.kill_server();
            t.start();
            let before = now();
            let creation = once(t, "node", 6);
            let after = now();
            let holds = (before + 1..=after + 1).contains(&creation);
            note_relation(t, "restarted", "now + 1", holds, &[creations[49], before, creation, after]);
        }),
    ]
}

fn forms() -> Vec<Case> {
    vec![
        case("before version 6 the counter is folded to 1..3").expect(&["returns: 1 to 3, in turn"]).play(
            |t| {
                let creations: Vec<u32> = (0..7).map(|_| once(t, "node", 5)).collect();
                let holds = creations.iter().all(|creation| (1..=3).contains(creation))
                    && creations.windows(2).all(|pair| pair[1] == pair[0] % 3 + 1);
                note_relation(t, "returns", "1 to 3, in turn", holds, &creations);
            },
        ),
        case("one name may use both forms in turn")
            .expect(&[
                "old form: next, folded",
                "new form: next but one",
                "oldest form: next, folded",
                "newest form: next but one",
            ])
            .play(|t| {
                let first = once(t, "node", 6);
                let second = once(t, "node", 5);
                let holds = second == folded(first, 1);
                note_relation(t, "old form", "next, folded", holds, &[first, second]);
                let third = once(t, "node", 6);
                note_relation(t, "new form", "next but one", third == first + 2, &[first, third]);
                let fourth = once(t, "node", 0);
                let holds = fourth == folded(third, 1);
                note_relation(t, "oldest form", "next, folded", holds, &[third, fourth]);
                let fifth = once(t, "node", 65535);
                note_relation(t, "newest form", "next but one", fifth == third + 2, &[third, fifth]);
            }),
    ]
}
