//! Hostile input: whatever a peer does, registered nodes stay registered and other clients are answered.
//!
//! Every test starts a daemon under the name `epmd` on its own host, registers a few nodes, does something hostile, and
//! then proves that the same process still has exactly those nodes, answers for them, accepts a new one, and holds no
//! more descriptors than before. Nothing is timed: a test waits for conditions, and its limits only keep a failure from
//! hanging.
//!
//! Tests that use random numbers print the seed; `PMD_HOSTILE_SEED` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

mod budget;
mod chance;
mod churn;
mod client;
mod companion;
mod exhaustion;
mod floods;
mod frozen_holders;
mod garbage;
#[path = "../harness/mod.rs"]
mod harness;
mod refusals;
mod registry_limit;
mod resets;
mod slow_peers;
mod stalled_log;
mod world;

use harness::wire;
