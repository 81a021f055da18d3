//! Hostile input: whatever a peer does, registered nodes stay registered and everybody else is answered.
//!
//! Every test starts a daemon under the name `epmd` on a host of its own, registers a few nodes, does something
//! hostile, and then proves that the same process still has exactly those nodes, answers for them, takes a new
//! one, and holds no descriptor more than before. Nothing is timed: a test waits for conditions, and its limits
//! only keep a failure from hanging.
//!
//! Tests that draw random numbers print the seed; `PMD_HOSTILE_SEED` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

#[path = "hostile/budget.rs"]
mod budget;
#[path = "hostile/chance.rs"]
mod chance;
#[path = "hostile/churn.rs"]
mod churn;
#[path = "hostile/client.rs"]
mod client;
#[path = "hostile/companion.rs"]
mod companion;
#[path = "hostile/exhaustion.rs"]
mod exhaustion;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/frozen_holders.rs"]
mod frozen_holders;
#[path = "hostile/garbage.rs"]
mod garbage;
#[path = "harness/mod.rs"]
mod harness;
#[path = "hostile/refusals.rs"]
mod refusals;
#[path = "hostile/registry_limit.rs"]
mod registry_limit;
#[path = "hostile/resets.rs"]
mod resets;
#[path = "hostile/slow_peers.rs"]
mod slow_peers;
#[path = "hostile/stalled_log.rs"]
mod stalled_log;
#[path = "conformance/wire.rs"]
#[allow(dead_code, reason = "the conformance battery uses more of it")]
mod wire;
#[path = "hostile/world.rs"]
mod world;
