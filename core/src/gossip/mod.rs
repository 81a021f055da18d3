//! How updates reach all members: pushed at once along a tree, compared from time to time, never queued.
//!
//! [`link`] tracks what must be sent on each link, [`tree`] decides which links carry updates and which only summaries,
//! and [`reconcile`] finds differences without sending equal parts.

mod heartbeat;
pub mod link;
pub mod reconcile;
pub mod tree;
