//! How news get everywhere: pushed at once along a tree, compared now and then, never queued.
//!
//! [`link`] keeps what has to be said on each link, [`tree`] decides which links carry updates and which only
//! summaries, [`reconcile`] finds differences without sending what is equal.

pub mod link;
pub mod reconcile;
pub mod tree;
