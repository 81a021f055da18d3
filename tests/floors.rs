//! The floors of `pmd` and `pmd-epmd`: no module uses another on its own floor or above, and the files of a module form
//! no import cycles. docs/architecture.md explains the floors.

#![allow(clippy::expect_used, reason = "a source that cannot be read fails the test")]

#[path = "../core/tests/support/floors.rs"]
mod floors;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use floors::{violations, violations_in};

/// From the lowest floor to the highest.
const PMD: &[&[&str]] = &[
    &["base"],
    &["config"],
    &["auth", "directory"],
    &["link", "discovery"],
    &["cluster"],
    &["tunnel", "claims"],
    &["metrics"],
    &["control"],
    &["web", "takeover"],
    &["daemon", "doctor", "top"],
    &["demo", "personality"],
    &["cli"],
];

/// From the lowest floor to the highest.
const EPMD: &[&[&str]] = &[
    &["counters", "descriptors", "kernel", "latency", "planted", "rate_limit", "reserve"],
    &["names", "client"],
    &["server"],
];

#[test]
fn pmd_has_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(violations(&root, PMD), [] as [String; 0]);
}

#[test]
fn pmd_epmd_has_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("epmd/src");
    assert_eq!(violations(&root, EPMD), [] as [String; 0]);
}

/// For each pair of modules that once used each other, an import in the wrong direction is reported with both files.
#[test]
fn the_former_cycles_would_be_reported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (low, high) in [
        ("config/mod.rs", "auth"),
        ("config/mod.rs", "discovery"),
        ("config/mod.rs", "tunnel"),
        ("link/mod.rs", "cluster"),
        ("link/mod.rs", "daemon"),
        ("link/mod.rs", "tunnel"),
        ("tunnel/mod.rs", "daemon"),
        ("control/mod.rs", "daemon"),
        ("metrics/mod.rs", "daemon"),
        ("web/mod.rs", "daemon"),
    ] {
        let mut sources = BTreeMap::new();
        read(&root, &root, &mut sources);
        sources.entry(low.to_owned()).or_default().push_str(&format!("\nuse crate::{high}::Anything;\n"));
        let found = violations_in(&sources, PMD);
        assert!(
            found.iter().any(|found| found.contains(low) && found.contains(&format!("{high}/mod.rs"))),
            "{low} -> {high}: {found:?}"
        );
    }
}

/// Files over 500 lines give a reason in their first comment.
#[test]
fn long_files_give_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "core", "epmd", "protocol", "tests", "erlang_tests", "benches", "fuzz/src"] {
        let mut sources = BTreeMap::new();
        read(&root.join(folder), root, &mut sources);
        for (file, text) in sources {
            let comment = text.lines().take_while(|line| line.starts_with("//!")).collect::<String>();
            let lines = text.lines().count();
            assert!(lines <= 500 || comment.contains("500 lines"), "{file} has {lines} lines");
        }
    }
}

fn read(folder: &Path, root: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                read(&path, root, sources);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            sources.insert(name, fs::read_to_string(&path).expect("a source"));
        }
    }
}
