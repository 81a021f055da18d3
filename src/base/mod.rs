//! The ground floor: what every other part of the daemon stands on, and which uses none of them.

pub mod clock;
pub mod descriptors;
pub mod files;
pub mod kernel;
pub mod latency;
pub mod log;
pub mod reserve;
pub mod shutdown;
pub mod stats;
pub mod text;
