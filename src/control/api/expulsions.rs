//! Members that administrators have expelled.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;

/// `POST /v1/expel` and `POST /v1/readmit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expel {
    /// The member: its id or at least the first 8 digits of it, its host name, or its address.
    pub member: String,
    /// Whether not to replace the cluster secret, which an expelled member knows.
    #[serde(default)]
    pub keep_secret: bool,
}

/// The response to `POST /v1/expel` and `POST /v1/readmit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The id of the daemon.
    pub id: String,
    /// Its host name; empty if it is not known.
    pub host: String,
    /// Whether this is new; otherwise it was so before.
    pub changed: bool,
}

/// `GET /v1/expelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpelledList {
    /// The daemons, those expelled first in front.
    pub expelled: Vec<Expelled>,
}

/// A daemon that was expelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expelled {
    /// Its id.
    pub id: String,
    /// Its host name; empty if it was not known.
    pub host: String,
    /// The host on which that was decided, by its own word.
    pub by: String,
    /// The id of the daemon on which that was decided.
    pub by_id: String,
    /// When it was decided, by the clock of that host.
    #[serde(with = "json::rfc3339_ms")]
    pub expelled_at: Timestamp,
}
