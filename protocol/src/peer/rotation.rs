//! The replacement of the cluster secret over links.
//!
//! A rotation is offered to all members, which from then on accept the new secret as well as the old one, and finished
//! once they have it, after which only the new one is accepted. It is signed by the daemon on which it was begun or
//! finished.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::attestation::{PublicKey, Signature};
use super::bounded;
use super::id::NodeId;
use crate::limits::MAX_SECRET;

/// The latest rotation that the sender knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Orders rotations: when it was begun, in milliseconds since the Unix epoch by the clock of its author, and greater
    /// than that of any rotation known to the author.
    pub begun_ms: u64,
    /// Whether the old secret is no longer accepted.
    pub finished: bool,
    /// The member that was expelled, for whom the secret is replaced. It does not get the new one, and neither does anybody
    /// who became a member shortly before: that may be the same host under another key.
    pub without: Option<NodeId>,
    /// The new secret, at most [`MAX_SECRET`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_SECRET>")]
    pub secret: String,
    /// The public key of the author, of which its id is the hash.
    pub author: PublicKey,
    /// The author's signature of all other fields.
    pub signature: Signature,
}

/// Without the secret, which must not be printed.
impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun_ms, finished, without, author, .. } = self;
        f.debug_struct("Rotation")
            .field("begun_ms", begun_ms)
            .field("finished", finished)
            .field("without", without)
            .field("author", author)
            .finish_non_exhaustive()
    }
}
