//! The live view of a daemon and its cluster on a terminal: `pmd top`, and `pmd demo`.
//!
//! [`world`] is what is known, [`model`] what of it is looked at, [`table`] the rows of each pane, [`draw`] the
//! picture: none of them does I/O. [`feed`] reads the control API, [`terminal`] the keys, and [`run`] brings them
//! together.

pub mod draw;
pub mod feed;
pub mod model;
pub mod run;
pub mod table;
pub mod terminal;
pub mod world;

#[cfg(test)]
mod tests;
