//! Lists of revoked certificates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;

/// `GET /v1/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationLists {
    /// The latest list of each authority.
    pub lists: Vec<RevocationList>,
}

/// The latest list of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// The name of the authority.
    pub issuer: String,
    /// Its number, which grows with each list.
    pub number: u64,
    /// When it was made, by the clock of the authority.
    #[serde(with = "json::rfc3339_ms")]
    pub updated_at: Timestamp,
    /// The revoked certificates, by serial number.
    pub revoked: Vec<RevokedCertificate>,
    /// The list in PEM.
    pub pem: String,
}

/// A revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedCertificate {
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Its host, if that is known: only the authority has a record of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When it was revoked, by the clock of the authority.
    #[serde(with = "json::rfc3339_ms")]
    pub revoked_at: Timestamp,
}

/// `POST /v1/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallRevocations {
    /// A list in PEM.
    pub pem: String,
}

/// The response to `POST /v1/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledRevocations {
    /// The name of the authority.
    pub issuer: String,
    /// The number of the list.
    pub number: u64,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// Whether it is new; otherwise it was in force before.
    pub changed: bool,
}
