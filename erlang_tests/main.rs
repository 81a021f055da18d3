//! Unmodified Erlang, Elixir, C nodes and RabbitMQ, with pmd in place of epmd.
//!
//! Every host of a test is a network namespace with its own host name (see the harness), and every node is a real
//! `erl` or `elixir`, started and stopped by the test. The tests need root and the packages that
//! `scripts/install-test-deps` installs; a missing package fails the test and is named.
//!
//! `PMD_TEST_MAPPER=stock` runs the same tests against the epmd of the installed Erlang/OTP: that run validates the
//! tests, the default run validates pmd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test stops at the first surprise, and its modules are nobody's interface"
)]

#[path = "../tests/harness/mod.rs"]
mod harness;
mod support;

mod agreement;
mod client;
mod commands;
mod elixir;
mod installation;
mod mnesia;
mod names;
mod ping;
mod pmd_client;
mod rabbitmq;
mod recovery;
mod restart;
mod takeover;
mod tools;
mod tunnel;
mod tunnel_aliases;
mod tunnel_apps;
mod tunnel_ejabberd;
mod tunnel_names;
mod tunnel_paths;
mod tunnel_rabbitmq;
mod tunnel_reload;
mod tunnel_rules;
mod tunnel_tools;
mod variants;
mod versions;
