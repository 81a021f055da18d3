//! The Debian package, the guides, the image and the Kubernetes examples, with the real dpkg, Erlang and RabbitMQ in
//! copies of this machine. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

use std::path::Path;
use std::process::Command;

/// Runs a script of the repository and prints its output.
fn script(name: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let output = Command::new(&path)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/{name}: {}", output.status);
}

/// The other tests here rely on this.
#[test]
fn a_copy_of_a_machine_has_no_trace_of_its_pmd() {
    script("test-copy", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// Installed beside a running epmd, taken over, upgraded with Erlang and with pmd, removed and purged.
#[test]
fn the_debian_package_replaces_epmd_and_restores_it() {
    script("test-deb", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// In a copy of the machine booted by systemd.
#[test]
fn the_systemd_units_replace_those_of_epmd() {
    script("test-systemd", &[env!("CARGO_BIN_EXE_pmd")]);
}

#[test]
fn the_commands_of_the_guides_work() {
    script("test-docs", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// In root directories that contain nothing else.
#[test]
fn the_image_needs_nothing_but_the_binary() {
    script("test-image", &[env!("CARGO_BIN_EXE_pmd")]);
}

#[test]
fn the_kubernetes_examples_match_the_binary() {
    script("test-contrib", &[env!("CARGO_BIN_EXE_pmd")]);
}
