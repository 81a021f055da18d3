//! The log: where lines go, what is kept of them in memory, and how many of one kind are written.

pub mod limited;
pub mod ring;
pub mod setup;
