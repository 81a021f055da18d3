//! An EPMD server and client as a library: compatible with stock epmd, with no limit on nodes but the number of
//! descriptors.
//!
//! The server knows nothing of clusters, TLS or HTTP. It answers from a [`server::Directory`] and passes connections
//! that are not EPMD to a [`server::Handoff`]; by default it serves the [`names::NameRegistry`] of this host.
//!
//! | module | job |
//! |---|---|
//! | [`server`] | the EPMD port: threads that accept connections, read requests, answer them and watch connections |
//! | [`names`] | the nodes registered on this host, by stock's rules |
//! | [`client`] | a client for any port mapper |
//! | [`descriptors`], [`reserve`] | sharing a process's descriptors, and accepting connections when none is left |
//! | [`kernel`] | kernel information on sockets and the processes that hold them |
//! | [`mod@counters`], [`latency`] | metrics |
//! | [`rate_limit`] | limiting the log lines that bad requests cause |
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
