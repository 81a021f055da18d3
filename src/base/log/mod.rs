//! The log: its setup, a writer that never blocks, recent lines in memory, and rate limits.

pub mod limited;
pub mod panics;
pub mod ring;
pub mod setup;
pub mod writer;
