//! A small cluster on one host, to try things with: daemons on loopback with a directory each, joined, and an Erlang
//! node beside each of them. All of it is the child of one process and ends with it.

pub mod fleet;
pub mod folder;
