//! Connections between daemons, on the port that also serves EPMD.
//!
//! ```text
//!   accept ─┐                                    ┌─ session   a standing link ──┐
//!           ├─▶ TLS ─▶ greeting (Hello, Proof) ──┤                              ├─▶ core
//!   dial ───┘                                    └─ packet    a short one ──────┘
//! ```

pub mod accept;
pub mod clock;
pub mod cookie;
pub mod dial;
pub mod greeting;
pub mod me;
pub mod packet;
pub mod place;
pub mod proof;
pub mod refusals;
pub mod session;
pub mod wire;
