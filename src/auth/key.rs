//! Generation of Ed25519 keys.
//!
//! Signing and verifying cost a fraction of P-256 without large tables, and each handshake does two of each. Keys of
//! other types can be used if they are supplied.

use rcgen::{KeyPair, PKCS_ED25519};

/// Generates a key.
///
/// # Errors
///
/// If the system's random number generator fails.
pub(super) fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ED25519)
}
