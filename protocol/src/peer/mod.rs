//! The protocol between daemons: their identities and their registrations.
//!
//! The wire format and the cluster node (`pmd-core`) share these types. Decoded values are valid and bounded, so
//! callers need no further checks.

pub mod attestation;
mod bounded;
pub mod claims;
pub mod codec;
pub mod entry;
pub mod expulsion;
pub mod frame;
pub mod id;
pub mod key;
pub mod revocation;
pub mod rotation;
pub mod update;

pub use attestation::{Attestation, PublicKey, Signature, StatementHash};
pub use codec::{Decoded, FrameError, Phase, Skip};
pub use entry::{Alias, Entry, EntryError, Host, Metadata, MetadataError, Name, Service};
pub use expulsion::{Expulsion, Expulsions};
pub use frame::Frame;
pub use id::{Digest, Generation, NodeId, Stamp, Version};
pub use key::{Key, KeyError, Kind, Op, Value, ValueError};
pub use revocation::RevocationList;
pub use rotation::Rotation;
pub use update::{Base, Update, Updates};
