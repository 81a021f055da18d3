//! What people install and read: the Debian package, the pages, the image and the Kubernetes examples, with the real
//! dpkg, Erlang and RabbitMQ in copies of this machine. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

use std::path::Path;
use std::process::Command;

/// Runs a script of the repository; what it says is the test's output.
fn script(name: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let output = Command::new(&path)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/{name}: {}", output.status);
}

/// Otherwise the other tests here would be about the machine that they run on.
#[test]
fn a_copy_of_a_machine_knows_nothing_of_its_pmd() {
    script("test-copy", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// Installed beside a running epmd, taken over, upgraded with Erlang and with pmd, removed and purged.
#[test]
fn the_debian_package_stands_in_for_epmd_and_gives_it_back() {
    script("test-deb", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// In a copy of the machine that systemd has booted.
#[test]
fn the_units_stand_in_for_those_of_epmd_under_systemd() {
    script("test-systemd", &[env!("CARGO_BIN_EXE_pmd")]);
}

#[test]
fn the_pages_say_what_happens() {
    script("test-docs", &[env!("CARGO_BIN_EXE_pmd")]);
}

/// In root directories that hold nothing else.
#[test]
fn the_image_needs_nothing_but_the_binary() {
    script("test-image", &[env!("CARGO_BIN_EXE_pmd")]);
}

#[test]
fn the_examples_use_what_there_is() {
    script("test-contrib", &[env!("CARGO_BIN_EXE_pmd")]);
}
