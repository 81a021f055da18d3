//! A stand-in for signatures, which costs one hash.
//!
//! It is no cryptography: whoever knows the public key could compute the signature. In the simulator nobody does so but the
//! daemon whose key it is, so forged statements are rejected as in production.

use pmd_protocol::peer::{PublicKey, Signature};
use sha2::{Digest as _, Sha256};

use crate::attest::Keys;

/// The keys of one simulated daemon.
#[derive(Clone, Debug)]
pub struct SimKeys(PublicKey);

impl SimKeys {
    /// The keys made from this secret.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(PublicKey::new(secret).unwrap_or_default())
    }

    fn signature(key: &PublicKey, message: &[u8]) -> Signature {
        let hash = Sha256::new_with_prefix(b"sim").chain_update(key.as_bytes()).chain_update(message);
        // As long as an Ed25519 signature and its scheme, for the sizes of frames.
        let mut bytes = [0; 66];
        for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Signature::new(&bytes).unwrap_or_default()
    }
}

impl Keys for SimKeys {
    fn public_key(&self) -> PublicKey {
        self.0.clone()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Self::signature(&self.0, message)
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        *signature == Self::signature(key, message)
    }
}
