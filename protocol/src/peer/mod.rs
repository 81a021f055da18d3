//! The protocol between daemons: who they are, and what they have registered.
//!
//! The wire and the cluster node (`pmd-core`) share these values. Whatever the decoder returns is valid and bounded, so
//! its users need no checks of their own.

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
