//! Black-box tests of the command line and of the control API: the built binary, a real daemon, real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

mod any_user;
mod api;
mod change;
mod cluster;
mod config;
mod demo;
mod events;
#[path = "../harness/mod.rs"]
mod harness;
mod identity;
mod lifecycle;
mod local_users;
mod lookups;
mod metrics;
mod output;
mod panics;
mod promises;
mod reference;
mod register;
mod stub;
mod supervision;
mod support;
mod terminal;
mod top;
