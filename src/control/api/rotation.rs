//! Rotations of the cluster secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;

/// `POST /v1/cookie/rotation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// Whether to finish the rotation that is in progress, instead of beginning one.
    #[serde(default)]
    pub finish: bool,
}

/// `GET /v1/cookie/rotation`, and the response to `POST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// When it was begun, by the clock of the host where it was.
    #[serde(with = "json::rfc3339_ms")]
    pub begun_at: Timestamp,
    /// Whether the old secret is no longer accepted.
    pub finished: bool,
    /// Members that are alive or suspected, this daemon included.
    pub members: usize,
    /// How many of them have the new secret.
    pub have: usize,
    /// The host names of the others, or their ids.
    pub missing: Vec<String>,
    /// How many other members were away when it was begun and may still return with the old secret.
    pub late: usize,
}
