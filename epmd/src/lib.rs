//! An EPMD server and client as a library: what stock epmd does, for as many nodes as there are descriptors.
//!
//! The server knows nothing of clusters, TLS or HTTP. It is given what it answers from (a [`server::Directory`]) and where
//! connections go that are not EPMD (a [`server::Handoff`]); by default it serves the [`names::NameRegistry`] of this host.
//!
//! | module | job |
//! |---|---|
//! | [`server`] | the EPMD port: threads that accept, read, answer and watch connections |
//! | [`names`] | the nodes of this host: who has which name, by stock's rules |
//! | [`client`] | asking any port mapper |
//! | [`descriptors`], [`reserve`] | sharing out a process's descriptors, and accepting when there is none left |
//! | [`kernel`] | what the kernel tells about sockets and the processes that hold them |
//! | [`mod@counters`], [`latency`] | what is measured |
//! | [`rate_limit`] | keeping a flood of bad requests from becoming a flood of log lines |
//!
//! A server in 30 lines is in `examples/serve.rs`; in short:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use pmd_epmd::names::{NameRegistry, NoObserver};
//! use pmd_epmd::server::listener::bind_all;
//! use pmd_epmd::server::{Host, Options, Server, Shared};
//!
//! # fn serve(host: Arc<dyn Host>) -> Result<Server, Box<dyn std::error::Error>> {
//! let names = Arc::new(NameRegistry::new(4369, 1000, Box::new(NoObserver)));
//! let listeners = bind_all(&[], 4369)?;
//! Ok(Server::start(Shared::new(names, host, 1024), listeners.into(), Options::default())?)
//! # }
//! ```

pub mod client;
pub mod counters;
pub mod descriptors;
pub mod kernel;
pub mod latency;
pub mod names;
#[doc(hidden)]
pub mod planted;
pub mod rate_limit;
pub mod reserve;
pub mod server;
