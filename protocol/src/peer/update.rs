//! Updates: operations of one origin on their way to a replica.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::id::{NodeId, Stamp, Version};
use super::key::Op;
use crate::limits::{MAX_OPS, MAX_UPDATES};

/// What a replica must have for the operations of an update to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// Nothing: the operations are all entries, and replace whatever the replica has.
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
    /// The version that it must have before.
    pub base: Base,
    /// Earlier parts had the operations up to this version. In the first part, this is the end of the base.
    pub after: Version,
    /// Whether this is the last part.
    pub last: bool,
    /// Operations with their versions, which increase over all parts; at most [`MAX_OPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_OPS>")]
    pub ops: Vec<(Version, Op)>,
}

/// Updates of several origins in one frame, because every frame costs a system call and an encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updates {
    /// At most [`MAX_UPDATES`], which together fit into a frame.
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_UPDATES>")]
    pub updates: Vec<Update>,
}

impl Base {
    /// The version after which the operations of the transfer begin.
    #[must_use]
    pub fn start(self) -> Version {
        match self {
            Self::Nothing => Version::ZERO,
            Self::After(version) => version,
        }
    }
}

impl Update {
    /// The most bytes that an update takes in a frame besides its operations.
    pub const FIXED: usize = 128;

    /// The most bytes that it takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::FIXED + self.ops.iter().map(|(_, op)| op.size()).sum::<usize>()
    }
}
