//! Lists of revoked certificates.

use serde::{Deserialize, Serialize};

use super::bounded;
use crate::limits::MAX_REVOCATION_LIST;

/// The latest list of revoked certificates of one certificate authority that the sender knows.
///
/// The list is opaque to this crate: an X.509 certificate revocation list (RFC 5280, section 5) in DER. The authority has
/// signed it, so daemons that pass it on need not be trusted, and it carries a number by which lists are ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// At most [`MAX_REVOCATION_LIST`] bytes.
    #[serde(deserialize_with = "bounded::bytes::<_, MAX_REVOCATION_LIST>")]
    pub der: Vec<u8>,
}
