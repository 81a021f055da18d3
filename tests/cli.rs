//! Black-box tests of the command line and of the control API: the built binary, a real daemon, real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation must stop the test, and nothing else can"
)]

#[path = "cli/api.rs"]
mod api;
#[path = "cli/change.rs"]
mod change;
#[path = "cli/cluster.rs"]
mod cluster;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/events.rs"]
mod events;
#[path = "harness/mod.rs"]
mod harness;
#[path = "cli/identity.rs"]
mod identity;
#[path = "cli/lifecycle.rs"]
mod lifecycle;
#[path = "cli/lookups.rs"]
mod lookups;
#[path = "cli/metrics.rs"]
mod metrics;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/reference.rs"]
mod reference;
#[path = "cli/register.rs"]
mod register;
#[path = "cli/stub.rs"]
mod stub;
#[path = "cli/supervision.rs"]
mod supervision;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/top.rs"]
mod top;
