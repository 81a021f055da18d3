//! Connections between daemons, on the same port as the EPMD protocol.
//!
//! ```text
//!   accept ─┐                                      ┌─ session   a persistent link for the core's frames ─┐
//!           ├─▶ TLS ─▶ handshake (Hello, Proof) ───┼─ oneshot   a frame or two without a link ───────────┴─▶ core inbox
//!   dial ───┘                                      └─ other registered protocols
//! ```

pub mod accept;
pub mod admission;
pub mod connection;
pub mod dial;
pub mod dial_targets;
pub mod handshake;
pub mod inbox;
pub mod known_addresses;
pub mod link_proof;
pub mod link_questions;
pub mod local_identity;
pub mod oneshot;
pub mod output;
pub mod peer_clock;
pub mod protocol;
pub mod proven_addresses;
pub mod refusals;
pub mod session;
pub mod shares;
