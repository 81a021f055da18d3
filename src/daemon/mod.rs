//! The running daemon: what its parts share, how it starts and how it ends.

pub mod context;
pub mod notify;
pub mod process;
pub mod run;
pub mod systemd;

pub use context::Context;
