//! The log: where lines go, which of them are kept in memory, and how many of one kind are written.

pub mod limited;
pub mod panics;
pub mod ring;
pub mod setup;
pub mod writer;
