//! pmd: a port mapper for Erlang and Elixir that stands in for `epmd`, byte for byte.
//!
//! | module | job |
//! |---|---|
//! | [`base`] | the ground floor: clocks, files, descriptors, log |
//! | [`auth`] | keys, certificates and the cluster secret |
//! | [`cluster`] | the core thread and what follows the cluster |
//! | [`pmd_epmd`] | (a crate of its own) the EPMD protocol on TCP |
//! | [`daemon`] | the running process: start, shared state, end |
//! | [`control`] | the local API on a Unix socket, both sides of it |
//! | [`link`] | connections to other daemons: TLS, the proof of the cookie, frames |
//! | [`tunnel`] | other hosts as loopback addresses, and the way to their nodes |
//! | [`directory`] | what other hosts have, for the EPMD port |
//! | [`discovery`] | finding other daemons |
//! | [`metrics`] | the numbers that monitoring asks for |
//! | [`web`] | the status page, on the EPMD port |
//! | [`config`] | flags, environment and files become settings |
//! | [`cli`] | the `pmd` command line |
//! | [`top`] | the live view on a terminal |
//! | [`demo`] | a small cluster on one host, to try things with |
//! | [`personality`] | what the binary is when it is called `epmd` |
//! | [`doctor`] | what commonly goes wrong, looked at in order |
//! | [`takeover`] | changing places with a running stock epmd |

pub mod auth;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod directory;
pub mod discovery;
pub mod doctor;
pub mod link;
pub mod metrics;
pub mod personality;
pub mod takeover;
pub mod top;
pub mod tunnel;
pub mod web;
