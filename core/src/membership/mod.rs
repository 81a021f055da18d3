//! Which daemons belong to the cluster, and which of them are alive.
//!
//! [`table`] keeps the members and [`record`] is what daemons tell each other about them; [`introductions`] limits how many
//! a peer may add, and [`dead`] how long those that have failed are remembered. [`phi`] evaluates heartbeats,
//! [`evidence`] probes members that may have failed, [`health`] assesses this daemon itself, [`expulsions`] are the members
//! that administrators have put out, and [`pace`] limits how many of them others may report. They send nothing; the node
//! does.

pub mod dead;
pub mod event;
pub mod evidence;
pub mod expulsions;
pub mod health;
pub mod identity;
pub mod introductions;
pub mod judge;
pub mod pace;
pub mod phi;
pub mod record;
pub mod table;

pub use identity::Identity;
pub use record::Liveness;
