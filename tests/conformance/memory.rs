//! The list of old names: its order, when names are dropped, and what a recycled record inherits.

use crate::battery::{Case, case};
use crate::harness::wait_until;
use crate::stage::{Stage, now};
use crate::wire;

/// With any `-d` stock epmd remembers this many names before it forgets one at the next new name.
const KEPT_WHEN_DEBUGGING: usize = 6;
/// The same without.
const KEPT: usize = 1001;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("old names are listed oldest first, and move up when they return")
            .expect(&["old: a b c", "old: b c", "old: b c a", "old: b c a"])
            .play(|t| {
                ["a", "b", "c"].iter().for_each(|name| _ = t.remember(name));
                note_old(t);
                let a = t.register("a");
                note_old(t);
                drop(a);
                t.wait_until_unregistered(b"a");
                note_old(t);
                // A lookup, a refusal and a list do not change the order.
                let peer = t.dial("refused");
                peer.send(&wire::Alive2::new("b").extra([0; 1021]).bytes());
                assert_eq!(peer.all_of(6), b"v\x01\0\0\0c");
                t.ask_silently(&wire::port2("c"));
                note_old(t);
            }),
        case("with -d a new name makes the seventh old name push out the first")
            .args(&["-d"])
            .expect(&[
                "old: n0 n1 n2 n3 n4 n5",
                "new name: inherits the creation of n0",
                "old: n1 n2 n3 n4 n5",
                "old: n1 n2 n3 n4 n5 new",
                "n0: forgotten, inherits the creation of n1",
            ])
            .play(|t| {
                let first = remembered(t, "n0", 9);
                let second = remembered(t, "n1", 5);
                (2..KEPT_WHEN_DEBUGGING).for_each(|number| _ = t.remember(format!("n{number}")));
                note_old(t);
                let new = t.register("new");
                note_inherited(t, "new name", "n0", new.creation, first);
                note_old(t);
                drop(new);
                t.wait_until_unregistered(b"new");
                note_old(t);
                let again = t.register("n0");
                let inherited = again.creation == second;
                t.note(if inherited { "n0: forgotten, inherits the creation of n1" } else { "n0: other" });
            }),
        case("with -d an old name that returns pushes nothing out")
            .args(&["-d"])
            .expect(&[
                "old: n0 n1 n2 n3 n4 n5",
                "old: n0 n1 n3 n4 n5",
                "old: n0 n1 n3 n4 n5 n2",
                "n0: one more",
            ])
            .play(|t| {
                let first = remembered(t, "n0", 3);
                (1..KEPT_WHEN_DEBUGGING).for_each(|number| _ = t.remember(format!("n{number}")));
                note_old(t);
                let returning = t.register("n2");
                note_old(t);
                drop(returning);
                t.wait_until_unregistered(b"n2");
                note_old(t);
                let next = t.register("n0").creation;
                t.note(if next == first + 1 { "n0: one more" } else { "n0: not one more" });
            }),
        // The limit is checked only when a new name registers.
        case("with -d leaving names may exceed the limit")
            .args(&["-d"])
            .expect(&["old: n0 n1 n2 n3 n4 n5 n6 n7 n8", "old: n1 n2 n3 n4 n5 n6 n7 n8"])
            .play(|t| {
                let nodes: Vec<_> = (0..9).map(|number| t.register(format!("n{number}"))).collect();
                for node in nodes {
                    drop(node.peer);
                    t.wait_until_unregistered(&node.name);
                }
                note_old(t);
                let _new = t.register("new");
                note_old(t);
            }),
        case("1001 names are remembered, and the oldest makes room for a new one")
            .expect(&[
                "remembered: 1001",
                "new name: inherits the creation of n0",
                "remembered: 1000",
                "first: n1",
                "n500: one more",
            ])
            .play(|t| {
                let first = remembered(t, "n0", 9);
                // The order of the first ones matters; the others may leave in any order.
                t.remember("n1");
                let mut middle = 0;
                for number in 2..KEPT {
                    let node = t.register(format!("n{number}"));
                    if number == 500 {
                        middle = node.creation;
                    }
                }
                wait_until("all names to be old", || t.names_text().is_some_and(|text| text.is_empty()));
                let old = old_names(t);
                t.note(&format!("remembered: {}", old.len()));
                let new = t.register("new");
                note_inherited(t, "new name", "n0", new.creation, first);
                let old = old_names(t);
                t.note(&format!("remembered: {}", old.len()));
                t.note(&format!("first: {}", old.first().map_or("none", String::as_str)));
                let next = t.register("n500").creation;
                t.note(if next == middle + 1 { "n500: one more" } else { "n500: not one more" });
            }),
    ]
}

/// Registers a name so often that its counter cannot be mistaken for the clock.
fn remembered(t: &Stage<'_>, name: &str, lead: u32) -> u32 {
    let mut creation = t.remember(name);
    while creation <= now() + lead {
        creation = t.remember(name);
    }
    creation
}

/// A recycled record keeps its counter.
fn note_inherited(t: &Stage<'_>, what: &str, from: &str, creation: u32, counter: u32) {
    let inherited = creation == counter;
    t.note(&if inherited {
        format!("{what}: inherits the creation of {from}")
    } else {
        format!("{what}: {creation} instead of {counter}")
    });
}

fn old_names(t: &Stage<'_>) -> Vec<String> {
    let lines = t.dump_lines();
    let old = lines.iter().filter_map(|line| line.strip_prefix("old/unused name <"));
    old.filter_map(|line| Some(line.split_once('>')?.0.to_owned())).collect()
}

fn note_old(t: &Stage<'_>) {
    t.note(&format!("old: {}", old_names(t).join(" ")));
}
