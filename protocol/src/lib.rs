//! The wire protocols as values: EPMD, and what daemons say to each other.
//!
//! There is no state beyond one connection's progress, no socket, no clock and no randomness in this crate,
//! so the same bytes always give the same values. What a request *does* (who may send it, what is registered,
//! when a connection is closed) belongs to the daemon; whether its bytes are a request at all is decided here
//! and only here.
//!
//! The format of EPMD is described in the Erlang distribution protocol documentation, section "EPMD Protocol". Where
//! that text is silent, the behaviour of stock epmd counts, down to its off-by-ones: a client must not be
//! able to tell the difference.
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
//! [`peer`] holds the vocabulary of the daemons among themselves.
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
