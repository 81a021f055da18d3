//! The running daemon: what its parts share, how it starts and how it ends.

pub mod activation;
pub mod addresses;
pub mod cluster;
pub mod complaints;
pub mod context;
pub mod core_task;
pub mod counters;
pub mod departure;
pub mod descriptors;
pub mod log;
pub mod log_ring;
pub mod notify;
pub mod process;
pub mod reserve;
pub mod run;
pub mod seek;
pub mod shutdown;

pub use context::Context;
