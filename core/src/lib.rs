//! The cluster node of pmd as a state machine.
//!
//! There is no socket, no clock and no source of randomness in this crate: equal inputs give equal outputs, and the
//! simulator (feature `sim`) runs the very code that production runs.
//!
//! ```text
//!                       ┌───────────────────────── node ─────────────────────────┐
//!   commands ─────────▶ │ registry    what is registered where: a CRDT           │ ──▶ patches, events
//!   frames, links ────▶ │ membership  who lives: SWIM, phi accrual, evidence     │ ──▶ dials
//!   time ─────────────▶ │ overlay     which links there should be                │ ──▶ frames, when a
//!                       │ spread      what goes over them                        │     socket can take them
//!                       └────────────────────────────────────────────────────────┘
//! ```
//!
//! [`node::Node`] is the way in; [`tuning`] has every number that can be turned.

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
