//! A small cluster on one host for trying pmd: daemons on loopback, each with its own directory and an Erlang node. All
//! of them are children of one process and end with it.

pub mod fleet;
pub mod folder;
