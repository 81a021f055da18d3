//! The cluster node of pmd as a sans-IO state machine.
//!
//! This crate has no sockets, no clock and no source of randomness: equal inputs give equal outputs, and the simulator
//! (feature `sim`) runs the same code as production.
//!
//! ```text
//!                       ┌───────────────────────── node ─────────────────────────┐
//!   commands ─────────▶ │ replica     the registry of all hosts: a CRDT          │ ──▶ patches, events
//!   frames, links ────▶ │ membership  failure detection: SWIM, phi accrual       │ ──▶ dials
//!   time ─────────────▶ │ overlay     which links there should be                │ ──▶ frames, when a
//!                       │ gossip      what is sent over them                     │     socket can take them
//!                       └────────────────────────────────────────────────────────┘
//! ```
//!
//! [`node::Node`] is the entry point, and [`tuning`] has every parameter. Modules form floors, and each uses only those
//! below its own (`tests/floors.rs` checks it). From the ground up:
//!
//! ```text
//!   id  tuning  facts    identities, parameters, facts shared between their holders
//!   membership  overlay  who is alive; whom to link to
//!   replica              what is registered, and what lookups see of it
//!   gossip  event        what each link has to say; what people are told
//!   node                 the daemon
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
