//! pmd: a port mapper for Erlang and Elixir, a byte-for-byte replacement for `epmd`.
//!
//! | module | purpose |
//! |---|---|
//! | [`base`] | the lowest layer: clocks, files, descriptors, log |
//! | [`auth`] | keys, certificates and the cluster secret |
//! | [`cluster`] | the core thread and the code that acts on cluster changes |
//! | [`pmd_epmd`] | (a separate crate) the EPMD protocol on TCP |
//! | [`daemon`] | the running process: startup, shared state, shutdown |
//! | [`control`] | the local API on a Unix socket, server and client |
//! | [`link`] | connections to other daemons: TLS, proof of the cluster secret, frames |
//! | [`tunnel`] | other hosts as loopback addresses, and the paths to their nodes |
//! | [`directory`] | names and services of other hosts, for the EPMD port |
//! | [`discovery`] | finding other daemons |
//! | [`metrics`] | Prometheus metrics |
//! | [`web`] | the status page, on the EPMD port |
//! | [`config`] | settings from flags, environment and files |
//! | [`cli`] | the `pmd` command line |
//! | [`top`] | the live view on a terminal |
//! | [`demo`] | a small cluster on one host for trying pmd |
//! | [`personality`] | the behaviour of the binary when called as `epmd` |
//! | [`doctor`] | checks for common problems, in order |
//! | [`takeover`] | replacing a running stock epmd, and back |

pub mod auth;
pub mod base;
pub mod claims;
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
