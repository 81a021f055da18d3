//! What a daemon signs, and how others check it.
//!
//! The cluster secret admits a daemon; it does not entitle it to speak for others. So whatever a daemon says about itself
//! (its generation, its addresses, whether it has left, the version and digest of its entries) carries its signature.
//! Receivers check it before they apply the statement or pass it on. What daemons say about *others*, that they cannot be
//! reached, is not signed: it is an accusation, which the accused refutes with a new statement of its own.
//!
//! See [`pmd_protocol::peer::attestation`] for the two statements and why they are signed together.

use std::fmt::Debug;

use pmd_protocol::peer::{Attestation, NodeId, PublicKey, Signature, Stamp, StatementHash};
use sha2::{Digest as _, Sha256};

/// The daemon's key, and the check of other daemons' signatures. The caller brings the cryptography.
pub trait Keys: Debug + Send + Sync {
    /// The public key of this daemon.
    fn public_key(&self) -> PublicKey;

    /// Signs a message with the key of this daemon.
    fn sign(&self, message: &[u8]) -> Signature;

    /// Whether the holder of a key has signed a message.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

/// The id of the daemon with this public key.
#[must_use]
pub fn id_of(key: &PublicKey) -> NodeId {
    NodeId::new(Sha256::digest(key.as_bytes()).into())
}

/// The hash of what a daemon says about its entries.
#[must_use]
pub fn hash_content(origin: &NodeId, stamp: &Stamp) -> StatementHash {
    let mut hash = Sha256::new_with_prefix(b"pmd entries\0");
    hash.update(origin.as_bytes());
    hash.update(stamp.generation.boot_ms.to_be_bytes());
    hash.update(stamp.generation.nonce.to_be_bytes());
    hash.update(stamp.version.0.to_be_bytes());
    hash.update(stamp.digest.as_bytes());
    StatementHash(hash.finalize().into())
}

/// Two statements of one daemon and its signature of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it says about itself as a member.
    pub member: StatementHash,
    /// What it says about its entries.
    pub content: StatementHash,
    /// Its signature.
    pub signature: Signature,
}

impl Signed {
    /// The signature that came with a statement about a member.
    #[must_use]
    pub fn with_member(member: StatementHash, attestation: &Attestation) -> Self {
        Self { member, content: attestation.other, signature: attestation.signature.clone() }
    }

    /// The signature that came with a statement about entries.
    #[must_use]
    pub fn with_content(content: StatementHash, attestation: &Attestation) -> Self {
        Self { member: attestation.other, content, signature: attestation.signature.clone() }
    }

    /// Signs two statements of this daemon.
    #[must_use]
    pub fn sign(keys: &dyn Keys, member: StatementHash, content: StatementHash) -> Self {
        Self { member, content, signature: keys.sign(&message(member, content)) }
    }

    /// Whether the holder of `key` has signed it.
    #[must_use]
    pub fn is_genuine(&self, keys: &dyn Keys, key: &PublicKey) -> bool {
        keys.verify(key, &message(self.member, self.content), &self.signature)
    }

    /// What the statement about the member travels with.
    #[must_use]
    pub fn member_attestation(&self) -> Attestation {
        Attestation { other: self.content, signature: self.signature.clone() }
    }

    /// What the statement about the entries travels with.
    #[must_use]
    pub fn content_attestation(&self) -> Attestation {
        Attestation { other: self.member, signature: self.signature.clone() }
    }
}

fn message(member: StatementHash, content: StatementHash) -> Vec<u8> {
    [b"pmd statements 2".as_slice(), &member.0, &content.0].concat()
}
