//! Decisions of administrators about members: expelled, or readmitted.
//!
//! A decision is signed by the daemon on which it was made, so that everybody sees whose it is and daemons that pass it
//! on need not be trusted. It is remembered by all members, whether or not either daemon still exists.

use serde::{Deserialize, Serialize};

use super::attestation::{PublicKey, Signature};
use super::bounded;
use super::id::NodeId;
use crate::limits::{MAX_EXPULSIONS, MAX_HOST_NAME};

/// The latest decision about one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expulsion {
    /// The member.
    pub member: NodeId,
    /// Orders the decisions about one member: when it was made, in milliseconds since the Unix epoch by the clock of its
    /// author, and greater than that of any decision known to the author.
    pub decided_ms: u64,
    /// Whether the member was expelled; otherwise it may join again.
    pub expelled: bool,
    /// The host name of the member, for display; at most [`MAX_HOST_NAME`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_HOST_NAME>")]
    pub host: String,
    /// The host name of the author, for display; at most [`MAX_HOST_NAME`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_HOST_NAME>")]
    pub by: String,
    /// The public key of the author, of which its id is the hash.
    pub author: PublicKey,
    /// The author's signature of all other fields.
    pub signature: Signature,
}

/// Decisions that the receiver may not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expulsions {
    /// At most [`MAX_EXPULSIONS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_EXPULSIONS>")]
    pub list: Vec<Expulsion>,
}
