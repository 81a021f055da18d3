//! The conformance battery: pmd behaves like stock epmd.
//!
//! Every case is played against the epmd of the Erlang installation first and then against pmd under the name `epmd`,
//! each in its own network namespace. Where pmd deliberately does better, the case says so; the list of those
//! exceptions is fixed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

mod addresses;
mod alive2;
mod battery;
mod client;
mod control;
mod creation;
mod daemon;
mod decisions;
mod framing;
#[path = "../harness/mod.rs"]
mod harness;
mod implementation;
mod lifecycle;
mod lists;
mod locality;
mod log;
mod lookup;
mod memory;
mod peer;
mod ports;
mod pretenders;
mod sockets;
mod stage;
mod systemd;
mod utf8;

use std::collections::BTreeSet;

use battery::Divergence;
use harness::wire;

#[test]
fn s02_framing() {
    battery::run(framing::cases());
}

#[test]
fn s03_1_alive2() {
    battery::run(alive2::cases());
}

#[test]
fn s03_2_lookup() {
    battery::run(lookup::cases());
}

#[test]
fn s03_3_lists() {
    battery::run(lists::cases());
}

#[test]
fn s03_5_control() {
    battery::run(control::cases());
}

#[test]
fn s05_utf8() {
    battery::run(utf8::cases());
}

#[test]
fn s06_creation() {
    battery::run(creation::cases());
}

#[test]
fn s07_memory() {
    battery::run(memory::cases());
}

#[test]
fn s08_lifecycle() {
    battery::run(lifecycle::cases());
}

#[test]
fn s09_locality() {
    battery::run(locality::cases());
}

#[test]
fn s10_addresses() {
    battery::run(addresses::cases());
}

#[test]
fn s10_ports() {
    battery::run(ports::cases());
}

#[test]
fn s11_daemon() {
    battery::run(daemon::cases());
}

#[test]
fn s12_systemd() {
    battery::run(systemd::cases());
}

#[test]
fn s13_client() {
    battery::run(client::cases());
}

#[test]
fn s14_log() {
    battery::run(log::cases());
}

#[test]
fn s18_decisions() {
    battery::run(decisions::cases());
}

/// Every case that deviates from stock epmd names one of the agreed divergences, and every divergence has a case.
#[test]
fn divergences_are_the_agreed_ones() {
    let sections: [fn() -> Vec<battery::Case>; 17] = [
        framing::cases,
        alive2::cases,
        lookup::cases,
        lists::cases,
        control::cases,
        utf8::cases,
        creation::cases,
        memory::cases,
        lifecycle::cases,
        locality::cases,
        addresses::cases,
        ports::cases,
        daemon::cases,
        systemd::cases,
        client::cases,
        log::cases,
        decisions::cases,
    ];
    let named: BTreeSet<Divergence> =
        sections.iter().flat_map(|cases| cases()).filter_map(|case| case.divergence()).collect();
    assert_eq!(named, BTreeSet::from(Divergence::ALL));
    // In which releases stock has each defect, which scripts/test-otp compares with what it sees.
    let listed: Vec<&str> =
        include_str!("versions.txt").lines().filter_map(|line| line.split('\t').next()).collect();
    let mut names: Vec<String> = named.iter().map(|divergence| format!("{divergence:?}")).collect();
    names.sort();
    assert_eq!(listed, names);
}
