//! News about one origin, as it travels.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::id::{NodeId, Stamp, Version};
use super::key::Op;
use crate::limits::{MAX_OPS, MAX_UPDATES};

/// What a replica must have for the operations of an update to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// Nothing: the operations are all entries, and whatever the replica has is replaced.
    Nothing,
    /// At least this version of the same life. They are the latest operation on each key that was touched since.
    After(Version),
}

/// One part of a transfer that takes a replica of `origin` to `stamp`. Most transfers have one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Whose operations.
    pub origin: NodeId,
    /// What the replica has when all parts are applied.
    pub stamp: Stamp,
    /// What it must have before.
    pub base: Base,
    /// Operations up to this version were in earlier parts. In the first part it is where the base ends.
    pub after: Version,
    /// Whether it is the last.
    pub last: bool,
    /// Operations with their versions, which increase over all parts; at most [`MAX_OPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_OPS>")]
    pub ops: Vec<(Version, Op)>,
}

/// Updates of several origins in one frame: with each frame comes the cost of encrypting and handling it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updates {
    /// At most [`MAX_UPDATES`], together no longer than a frame.
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_UPDATES>")]
    pub updates: Vec<Update>,
}

impl Base {
    /// The version above which a transfer has something to say.
    #[must_use]
    pub fn start(self) -> Version {
        match self {
            Self::Nothing => Version::ZERO,
            Self::After(version) => version,
        }
    }
}

impl Update {
    /// Bytes that an update takes in a frame besides its operations, at most.
    pub const FIXED: usize = 128;

    /// Bytes that it takes in a frame, at most.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::FIXED + self.ops.iter().map(|(_, op)| op.size()).sum::<usize>()
    }
}
