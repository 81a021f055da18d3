//! What daemons say to each other: who they are, and what they have registered.
//!
//! These values are shared by the wire and by the node that decides (`pmd-core`): what has been decoded is valid
//! and bounded, so that nobody behind the decoder has to look again.

mod bounded;
pub mod codec;
pub mod entry;
pub mod frame;
pub mod id;
pub mod key;
pub mod update;

pub use codec::{Decoded, FrameError, Phase, Skip};
pub use entry::{Entry, EntryError, Host, Metadata, MetadataError, Name, Service};
pub use frame::Frame;
pub use id::{Digest, Generation, NodeId, Stamp, Version};
pub use key::{Key, KeyError, Kind, Op, Value, ValueError};
pub use update::{Base, Update, Updates};
