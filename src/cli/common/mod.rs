//! What the commands share.

pub mod diagnosis;
pub mod exit;
pub mod failure;
pub mod output;
pub mod runtime;
pub mod switch;
pub mod target;
