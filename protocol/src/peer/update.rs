//! Updates: operations of one origin, sent to a replica.

use serde::{Deserialize, Serialize};

use super::attestation::Attestation;
use super::bounded;
use super::id::{NodeId, Stamp, Version};
use super::key::Op;
use crate::limits::{MAX_OPS, MAX_UPDATES};

/// The version that a replica must have so that the operations of an update can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// None: the operations are all entries, and replace the replica's content.
    Nothing,
    /// At least this version of the same generation. The operations are the latest on each key touched since.
    After(Version),
}

/// One part of a transfer that takes a replica of `origin` to `stamp`. Most transfers have one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The daemon whose operations they are.
    pub origin: NodeId,
    /// The version that the replica has once all parts are applied.
    pub stamp: Stamp,
    /// The origin's signature of that version.
    pub attestation: Attestation,
    /// The version that it must have before.
    pub base: Base,
    /// The operations up to this version were in earlier parts. In the first part, this is the version of the base.
    pub after: Version,
    /// Whether this is the last part.
    pub last: bool,
    /// Operations with their versions, which increase over all parts; at most [`MAX_OPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_OPS>")]
    pub ops: Vec<(Version, Op)>,
}

/// Updates of several origins in one frame, because every frame costs a system call and an encryption operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updates {
    /// At most [`MAX_UPDATES`], which together fit into a frame.
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_UPDATES>")]
    pub updates: Vec<Update>,
}

impl Base {
    /// The version after which the operations of the transfer start.
    #[must_use]
    pub fn start(self) -> Version {
        match self {
            Self::Nothing => Version::ZERO,
            Self::After(version) => version,
        }
    }
}

impl Update {
    /// The maximum number of bytes that an update takes in a frame, not counting its operations.
    pub const FIXED: usize = 192;

    /// The maximum number of bytes that it takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::FIXED
            + self.attestation.signature.as_bytes().len()
            + self.ops.iter().map(|(_, op)| op.size()).sum::<usize>()
    }
}
