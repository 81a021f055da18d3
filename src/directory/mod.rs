//! What is registered, on this host and on others, and what has happened to it.

pub mod changes;
pub mod cluster;
pub mod events;
pub mod local;
pub mod services;
