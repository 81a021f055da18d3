//! The live view of a daemon and its cluster on a terminal: `pmd top`, and `pmd demo`.
//!
//! [`world`] is the known state of the cluster, [`model`] the state of the view, [`pane`] the panes, [`table`] their rows
//! and [`draw`] draws them: these modules do no I/O. [`feed`] reads the control API, [`terminal`] the keys, and [`run`]
//! connects them.

pub mod draw;
pub mod feed;
pub mod model;
pub mod pane;
pub mod run;
pub mod table;
pub mod terminal;
pub mod world;

#[cfg(test)]
mod tests;
