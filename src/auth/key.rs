//! The kind of key that pmd makes: Ed25519.
//!
//! Signing and verifying take a fraction of what P-256 takes without large tables, and each handshake has two of each. Keys of
//! other kinds, that come from elsewhere, are as good.

use rcgen::{KeyPair, PKCS_ED25519};

/// A new key.
///
/// # Errors
///
/// If the system has no randomness.
pub(super) fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ED25519)
}
