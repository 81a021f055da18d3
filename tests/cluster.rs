//! Clusters of real daemons: every host is a network namespace, every daemon a process of its own.
//!
//! Nothing is timed: a test waits until something holds on all hosts, and its limits only keep a failure from hanging.
//! Where a test fails, it says what the daemons logged last and where the whole logs are. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

#[path = "cluster/dialling_back.rs"]
mod dialling_back;
#[path = "cluster/doctor.rs"]
mod doctor;
#[path = "cluster/erlang.rs"]
mod erlang;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "harness/fleet/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmark uses the rest")]
mod fleet;
#[path = "cluster/golden.rs"]
mod golden;
#[path = "harness/mod.rs"]
mod harness;
#[path = "cluster/joining.rs"]
mod joining;
#[path = "cluster/leaving.rs"]
mod leaving;
#[path = "cluster/lookups.rs"]
mod lookups;
#[path = "cluster/machine.rs"]
mod machine;
#[path = "cluster/metrics.rs"]
mod metrics;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/page.rs"]
mod page;
#[path = "cluster/partitions.rs"]
mod partitions;
#[path = "cluster/registrations.rs"]
mod registrations;
#[path = "cluster/security/mod.rs"]
mod security;
#[path = "cluster/sizes.rs"]
mod sizes;
#[path = "cluster/watch.rs"]
mod watch;
#[path = "cluster/world.rs"]
mod world;
