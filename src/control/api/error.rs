//! Errors.

use serde::{Deserialize, Serialize};

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorInfo,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// For programs: one of the codes of [`ErrorCode`], and more in later versions.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// The codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood, or asks for something that cannot be.
    InvalidRequest,
    /// There is nothing of that name.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The name is taken.
    Conflict,
    /// The request is longer than it may be.
    TooLarge,
    /// The request did not come in time.
    Timeout,
    /// There is no room for more.
    Full,
    /// The daemon is about to end.
    Ending,
    /// The daemon takes no part in a cluster.
    NoCluster,
    /// The name of a daemon to be joined has no address.
    Unresolvable,
    /// Nobody answers at the address of a daemon to be joined.
    Unreachable,
    /// A daemon to be joined does not let this one in, or is not to be let in itself.
    Refused,
    /// A daemon was to join itself.
    Oneself,
    /// A node is registered, and does not accept connections or does not answer as nodes do.
    Silent,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "invalid_request",
            ErrorCode::NotFound => "not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::Conflict => "conflict",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Full => "full",
            ErrorCode::Ending => "ending",
            ErrorCode::NoCluster => "no_cluster",
            ErrorCode::Unresolvable => "unresolvable",
            ErrorCode::Unreachable => "unreachable",
            ErrorCode::Refused => "refused",
            ErrorCode::Oneself => "oneself",
            ErrorCode::Silent => "silent",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::InvalidRequest | ErrorCode::Oneself => 400,
            ErrorCode::Refused => 403,
            ErrorCode::NotFound | ErrorCode::Unresolvable => 404,
            ErrorCode::MethodNotAllowed => 405,
            ErrorCode::Timeout => 408,
            ErrorCode::Conflict | ErrorCode::NoCluster => 409,
            ErrorCode::TooLarge => 413,
            ErrorCode::Unreachable | ErrorCode::Silent => 502,
            ErrorCode::Full | ErrorCode::Ending => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_serde_makes_of_them() {
        use ErrorCode::{
            Conflict, Ending, Full, InvalidRequest, MethodNotAllowed, NoCluster, NotFound, Oneself, Refused,
            Timeout, TooLarge, Unreachable, Unresolvable,
        };
        let first = [Conflict, Ending, Full, InvalidRequest, MethodNotAllowed, NotFound, Timeout, TooLarge];
        for code in first.into_iter().chain([NoCluster, Oneself, Refused, Unreachable, Unresolvable]) {
            assert_eq!(serde_json::to_value(code).expect("a string"), code.as_str());
        }
    }
}
