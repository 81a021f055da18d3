//! The log: where lines go, what is kept of them in memory, and how many of one kind are written.

pub mod repeats;
pub mod ring;
pub mod setup;
