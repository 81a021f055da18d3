//! The status page, on the EPMD port: HTTP that only reads.
//!
//! | module | job |
//! |---|---|
//! | [`listener`] | takes HTTP connections over from the EPMD port, and limits them |
//! | [`page`] | the paths, and who may read them |

pub mod listener;
pub mod page;

pub use listener::{WebListener, is_http, start};
