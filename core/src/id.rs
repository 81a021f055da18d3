//! Identities, generations and versions, as in [`pmd_protocol::peer::id`], and the fingerprint of a registry.

pub use pmd_protocol::peer::id::{Digest, Generation, NodeId, NodeIdError, Stamp, Version};

use sha2::{Digest as _, Sha256};

/// The contribution of one live origin to the fingerprint of a registry.
///
/// The fingerprint is the sum over all live origins. Two daemons with equal fingerprints see the same members and the
/// same entries. It includes the digest of the content, so that two daemons sharing one identity are detected.
#[must_use]
pub fn fingerprint_of(origin: &NodeId, stamp: &Stamp) -> Digest {
    let mut hash = Sha256::new_with_prefix(b"pmd origin\0");
    hash.update(origin.as_bytes());
    hash.update(stamp.generation.boot_ms.to_be_bytes());
    hash.update(stamp.generation.nonce.to_be_bytes());
    hash.update(stamp.version.0.to_be_bytes());
    hash.update(stamp.digest.as_bytes());
    Digest::of(hash.finalize().into())
}
