//! The live view of a daemon and its cluster on a terminal: `pmd top`, and `pmd demo`.
//!
//! [`world`] is the known state of the cluster, [`model`] the state of the view, [`pane`] the panes and [`table`] their
//! rows; [`draw`] draws them. These modules do no I/O. [`feed`] reads the control API, [`terminal`] reads the keys, and
//! [`run`] connects them.

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
