//! Who belongs to the cluster, and who of them is alive.
//!
//! [`table`] keeps the members and [`record`] is what daemons tell each other about them. [`phi`] judges heartbeats,
//! [`evidence`] probes members that may have failed, and [`health`] is this daemon's judgement of itself. None of them
//! sends anything; the node does.

pub mod evidence;
pub mod health;
pub mod identity;
pub mod phi;
pub mod record;
pub mod table;

pub use identity::Identity;
pub use record::Liveness;
