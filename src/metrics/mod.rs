//! Metrics in the text format of Prometheus.
//!
//! | module | job |
//! |---|---|
//! | [`families`] | every family: name, type, help text and samples |
//! | [`observed`] | the values that samples are made from |
//! | [`gather`] | reads those values from a running daemon |
//! | [`text`] | the text format |

pub mod families;
pub mod gather;
pub mod observed;
pub mod text;

pub use families::FAMILIES;
pub use text::{CONTENT_TYPE, render};
