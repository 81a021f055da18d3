//! What monitoring asks for: the daemon's numbers in the text format of Prometheus.
//!
//! | module | job |
//! |---|---|
//! | [`latency`] | how long requests take, from a sample of them |
//! | [`gather`] | all numbers at one moment |
//! | [`text`] | the format |
//!
//! No label ever has the name of an Erlang node in it, and what is told by peer is told of links only, of which there
//! are about ten: the number of time series does not grow with what is registered.

pub mod gather;
pub mod text;

pub use gather::render;
pub use text::CONTENT_TYPE;
