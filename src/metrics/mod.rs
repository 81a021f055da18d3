//! Metrics in the text format of Prometheus.
//!
//! | module | job |
//! |---|---|
//! | [`families`] | every family: name, type, help text and samples |
//! | [`observed`] | the values they are read from |
//! | [`gather`] | fills those values from a running daemon |
//! | [`text`] | the format |

pub mod families;
pub mod gather;
pub mod observed;
pub mod text;

pub use families::FAMILIES;
pub use text::{CONTENT_TYPE, render};
