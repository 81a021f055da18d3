//! The status page, on the EPMD port: HTTP that only reads.
//!
//! | module | job |
//! |---|---|
//! | [`door`] | connections that speak HTTP, from the EPMD port to here, and their limits |
//! | [`page`] | what is answered, and to whom |
//! | [`patience`] | the end of connections whose other side does not read |

pub mod listener;
pub mod page;
pub mod write_timeout;

pub use listener::{Door, is_http, start};
