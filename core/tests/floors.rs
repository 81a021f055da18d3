//! The floors of this crate and of `pmd-protocol`: no module uses a module on the same or a higher floor, and the files
//! of a module have no cyclic dependencies.

#[path = "support/floors.rs"]
mod floors;

use std::collections::BTreeMap;
use std::path::Path;

use floors::{violations, violations_in};

/// Listed from the bottom up.
const CORE: &[&[&str]] = &[
    &["id", "tuning", "facts", "attest"],
    &["membership", "overlay", "claims"],
    &["replica"],
    &["event", "gossip"],
    &["node"],
    &["sim"],
];

/// Listed from the bottom up.
const PROTOCOL: &[&[&str]] = &[&["limits"], &["name"], &["epmd", "peer"]];

#[test]
fn core_has_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(violations(&root, CORE), [] as [String; 0]);
}

#[test]
fn protocol_has_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src");
    assert_eq!(violations(&root, PROTOCOL), [] as [String; 0]);
}

/// Returns the violations in these sources, given as file names and texts.
fn check(sources: &[(&str, &str)]) -> Vec<String> {
    let sources: BTreeMap<_, _> =
        sources.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    violations_in(&sources, &[&["low"], &["left", "right"], &["high"]])
}

/// Checks a crate without violations in which `file` is replaced with `text`.
fn check_with(file: &str, text: &str) -> Vec<String> {
    let mut sources = BTreeMap::from([
        ("lib.rs", "pub mod high; pub mod left; pub mod low; pub mod right;"),
        ("high.rs", "use crate::{left, low::thing::Thing};"),
        ("left.rs", ""),
        ("low/mod.rs", "pub mod thing;\npub use thing::Thing;"),
        ("low/thing.rs", "pub struct Thing;"),
        ("right.rs", "fn right() { crate::low::thing::run() }"),
    ]);
    sources.insert(file, text);
    check(&sources.into_iter().collect::<Vec<_>>())
}

#[test]
fn downwards_is_allowed() {
    assert_eq!(check_with("left.rs", "use crate::low::*;"), [] as [&str; 0]);
}

#[test]
fn upwards_is_found_in_every_form() {
    for text in [
        "\nuse crate::high::High;",
        "\nuse crate::{low::Thing, high::{self as above, High}};",
        "\nuse super::high::High;",
        "\npub use crate::high::High;",
        "\nfn f<'a>(quote: char) -> crate::high::High<'a> { assert_ne!(quote, '\"') }",
        "\nmod inner { use super::super::high; }",
    ] {
        let found = check_with("left.rs", text);
        assert!(!found.is_empty(), "{text}");
        assert!(
            found.iter().all(|line| line.starts_with("left.rs:2 uses high.rs upwards: crate::high")),
            "{found:?}"
        );
    }
}

#[test]
fn sideways_and_the_root_are_found() {
    assert_eq!(
        check_with("left.rs", "use crate::right::Right;"),
        ["left.rs:1 uses right.rs sideways: crate::right::Right"]
    );
    assert_eq!(check_with("left.rs", "use crate::Root;"), ["left.rs:1 uses lib.rs upwards: crate::Root"]);
}

#[test]
fn comments_strings_and_tests_do_not_count() {
    let text = r##"
        //! [`crate::high`]
        /* crate::high /* nested */ crate::high */
        const TEXT: &str = "crate::high \" crate::high";
        const RAW: &str = r#"crate::high " crate::high"#;
        #[cfg(test)]
        use crate::high::High;
        #[cfg(test)]
        mod tests { use crate::high::High; fn f() { crate::high::run() } }
    "##;
    assert_eq!(check_with("left.rs", text), [] as [&str; 0]);
    let outside = [("left.rs", "#[cfg(test)] mod tests;"), ("left/tests.rs", "use crate::high::High;")];
    let rest = [("low.rs", ""), ("right.rs", ""), ("high.rs", "")];
    assert_eq!(
        check(&[outside, [rest[0], rest[1]]].concat().into_iter().chain([rest[2]]).collect::<Vec<_>>()),
        [""; 0]
    );
}

#[test]
fn cycles_inside_a_module_are_found() {
    let cycle = check(&[
        ("low/mod.rs", "mod a; mod b; mod c;"),
        ("low/a.rs", "use super::b::B;"),
        ("low/b.rs", "fn f() { super::c::run() }"),
        ("low/c.rs", "use crate::low::a::A;"),
        ("left.rs", ""),
        ("right.rs", ""),
        ("high.rs", ""),
    ]);
    assert_eq!(cycle, ["cycle: low/a.rs -> low/b.rs -> low/c.rs -> low/a.rs"]);
    let parent = check(&[
        ("low/mod.rs", "mod a; use a::A; pub struct Low;"),
        ("low/a.rs", "use super::Low;"),
        ("left.rs", ""),
        ("right.rs", ""),
        ("high.rs", ""),
    ]);
    assert_eq!(parent, ["cycle: low/mod.rs -> low/a.rs -> low/mod.rs"]);
}

#[test]
fn every_module_has_one_floor() {
    let found = check_with("attic.rs", "");
    assert_eq!(found, ["attic has no floor"]);
    assert_eq!(check(&[("low.rs", ""), ("left.rs", ""), ("high.rs", "")]), ["there is no module right"]);
}
