//! Limits of a request to the control API.

use std::time::Duration;

/// Maximum bytes of a request's head, and of its body.
pub const MAX_REQUEST: usize = 64 * 1024;
/// How long a client may take to send a request's head, and then its body; also how long a connection may be idle.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
