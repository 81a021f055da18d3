//! The status page on the EPMD port: read-only HTTP.
//!
//! | module | job |
//! |---|---|
//! | [`listener`] | takes over HTTP connections from the EPMD port and limits their number |
//! | [`page`] | the paths, and who may read them |

pub mod listener;
pub mod page;

pub use listener::{WebListener, is_http, start};
