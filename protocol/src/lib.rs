//! The wire protocols as values: EPMD, and the protocol between pmd daemons.
//!
//! This crate has no sockets, no clock, no randomness, and no state beyond the progress of one connection, so the same
//! bytes always give the same values. It only decides whether bytes are a request. What a request *does* (who may send
//! it, what is registered, when a connection is closed) is up to the daemon.
//!
//! The Erlang distribution protocol documentation describes EPMD in the section "EPMD Protocol". Where that text is
//! silent, this crate does what stock epmd does, including its off-by-one errors: a client must not be able to tell
//! the difference.
//!
//! ```text
//!   client                                     server
//!   epmd::encode::request  ── 2-byte length, ─▶ epmd::parse::frame ──▶ epmd::parse::parse_request
//!                             opcode, body
//!   epmd::reply::parse_reply ◀── no length ──── epmd::encode::{alive2_reply, port2_found, names_line, …}
//! ```
//!
//! `epmd::codec` (feature `codec`) wraps both sides for `tokio_util::codec::Framed`.
//!
//! [`peer`] contains the messages between daemons.
//!
//! ```
//! use pmd_protocol::epmd::{Request, encode, parse};
//!
//! let mut wire = Vec::new();
//! encode::request(&Request::PortPlease2 { name: "rabbit" }, &mut wire)?;
//! assert_eq!(wire, b"\x00\x07zrabbit");
//!
//! let body = parse::frame(&wire)?.ok_or("incomplete")?;
//! assert_eq!(parse::parse_request(body)?, Request::PortPlease2 { name: "rabbit" });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

pub mod epmd;
pub mod limits;
pub mod name;
pub mod peer;

pub use name::{HostName, HostNameError, NodeName, NodeNameError, ServiceName, ServiceNameError};
