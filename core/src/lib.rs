//! The cluster node of pmd as a sans-IO state machine.
//!
//! This crate has no sockets, no clock and no source of randomness: equal inputs give equal outputs, and the simulator
//! (feature `sim`) runs the same code as production.
//!
//! ```text
//!                       ┌───────────────────────── node ─────────────────────────┐
//!   commands ─────────▶ │ replica     the registry of all hosts: a CRDT          │ ──▶ patches, events
//!   frames, links ────▶ │ membership  failure detection: SWIM, phi accrual       │ ──▶ dials
//!   time ─────────────▶ │ overlay     which links to keep                        │ ──▶ frames, when a
//!                       │ gossip      what to send over them                     │     socket can take them
//!                       └────────────────────────────────────────────────────────┘
//! ```
//!
//! [`node::Node`] is the entry point, and [`tuning`] has every parameter. Modules are layered: each uses only those
//! below it (`tests/floors.rs` checks this). From the bottom up:
//!
//! ```text
//!   id  tuning  facts    identities, parameters, facts shared between their holders
//!   attest               what a daemon signs
//!   membership  overlay  who is alive; which members to link to
//!   replica              what is registered, and what lookups see of it
//!   gossip  event        what to send on each link; what to report to users
//!   node                 the daemon
//!   claims               names that one member holds at a time, decided by voters; apart from all of the above
//!   sim                  many daemons, with simulated time, network and faults
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

pub mod attest;
pub mod claims;
pub mod event;
pub mod facts;
pub mod gossip;
pub mod id;
pub mod membership;
pub mod node;
pub mod overlay;
pub mod replica;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tuning;
