//! Clusters of real daemons: every host is a network namespace, every daemon a separate process.
//!
//! Nothing is timed: a test waits until a condition holds on all hosts, and its limits only keep a failure from
//! hanging. A failed test shows the last log lines of the daemons and where the full logs are. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

mod asking;
mod claims;
mod dialling_back;
mod doctor;
mod erlang;
mod expelling;
mod failures;
#[path = "../harness/fleet/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmark uses the rest")]
mod fleet;
mod golden;
mod greetings;
#[path = "../harness/mod.rs"]
mod harness;
mod joining;
mod leaving;
mod lookups;
mod lost_aliases;
mod machine;
mod metrics;
mod network;
mod page;
mod partitions;
mod registrations;
mod security;
mod sizes;
mod tunnel_exits;
mod watch;
mod world;
