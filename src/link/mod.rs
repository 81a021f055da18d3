//! Connections between daemons, on the port that also serves EPMD.
//!
//! ```text
//!   accept ─┐                                      ┌─ session   a link: lasts, carries the core's frames ─┐
//!           ├─▶ TLS ─▶ handshake (Hello, Proof) ───┼─ oneshot   a frame or two to a member without a link ─┼─▶ inbox of the core
//!   dial ───┘                                      └─ whatever else is registered as a Protocol            ┘
//! ```

pub mod accept;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod inbox;
pub mod local_identity;
pub mod oneshot;
pub mod output;
pub mod peer_clock;
pub mod protocol;
pub mod refusals;
pub mod session;
