//! The cluster node of pmd as a state machine.
//!
//! There is no socket, no clock and no source of randomness in this crate: equal inputs give equal outputs, and the
//! simulator runs the very code that production runs.

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
pub mod id;
pub mod membership;
pub mod node;
pub mod overlay;
pub mod registry;
#[cfg(feature = "sim")]
pub mod sim;
pub mod spread;
pub mod tuning;
