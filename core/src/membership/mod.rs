//! Who belongs to the cluster, and who of them lives.
//!
//! [`table`] keeps the members, [`record`] is what is said about them, [`phi`] listens to heartbeats, [`evidence`] looks
//! into clues, [`health`] doubts this daemon itself. None of them sends anything; the node does.

pub mod evidence;
pub mod health;
pub mod identity;
pub mod phi;
pub mod record;
pub mod table;

pub use identity::Identity;
pub use record::Liveness;
