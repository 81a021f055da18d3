//! Error responses.

use serde::{Deserialize, Serialize};

/// The body of every error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorInfo,
}

/// The error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// For programs: the code of an [`ErrorCode`], or one of a later version.
    pub code: String,
    /// For people: what went wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// The codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed, or asks for something impossible.
    InvalidRequest,
    /// Nothing of this name exists.
    NotFound,
    /// The path does not support this method.
    MethodNotAllowed,
    /// The name is taken.
    Conflict,
    /// The request is too long.
    TooLarge,
    /// The request did not arrive in time, or a peer did not respond in time.
    Timeout,
    /// A limit is reached.
    Full,
    /// The daemon is shutting down.
    Ending,
    /// The daemon is not a member of a cluster.
    NoCluster,
    /// The name of a daemon to join has no address.
    Unresolvable,
    /// No daemon answers at an address to join.
    Unreachable,
    /// A daemon to join rejected this one, or was rejected by it.
    Refused,
    /// A daemon cannot join itself.
    Oneself,
    /// A registered node does not accept connections, or does not respond as an Erlang node.
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

    /// The HTTP status of responses with this code.
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
    fn codes_match_their_serde_names() {
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
