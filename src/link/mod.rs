//! Connections between daemons, on the port that also serves EPMD.
//!
//! ```text
//!   accept ─┐                                    ┌─ session   a standing link ──┐
//!           ├─▶ TLS ─▶ greeting (Hello, Proof) ──┤                              ├─▶ core
//!   dial ───┘                                    └─ packet    a short one ──────┘
//! ```

pub mod accept;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod local_identity;
pub mod oneshot;
pub mod peer_clock;
pub mod permit;
pub mod refusals;
pub mod session;
