//! Basic utilities that all other modules use, and that use none of them.

pub mod backoff;
pub mod clock;
pub mod files;
pub mod first_choice;
pub mod foreign;
pub mod log;
pub mod permit;
pub mod rate;
pub mod shutdown;
pub mod source;
pub mod stats;
pub mod supervise;
pub mod text;
