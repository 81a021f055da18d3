//! How news reach all members: pushed at once along a tree, compared from time to time, never queued.
//!
//! [`link`] keeps what has to be sent on each link, [`tree`] decides which links carry updates and which only summaries,
//! and [`reconcile`] finds differences without sending what is equal.

mod heartbeat;
pub mod link;
pub mod reconcile;
pub mod tree;
