//! The crate must not depend on anything with sockets, a clock or entropy.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

use std::process::Command;

/// Crates that provide I/O, time or randomness.
const BANNED: [&str; 11] = [
    "async-std",
    "chrono",
    "getrandom",
    "hyper",
    "jiff",
    "mio",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
    "tokio-util",
];

#[test]
fn the_dependency_tree_has_no_sockets_clocks_or_entropy() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "pmd-core", "--edges", "normal", "--all-features"])
        .args(["--prefix", "none", "--format", "{p}", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"pmd-core") && names.contains(&"pmd-protocol"), "{tree}");
    let found: Vec<_> = names.iter().filter(|name| BANNED.contains(name)).collect();
    assert!(found.is_empty(), "{found:?} in\n{tree}");
}
