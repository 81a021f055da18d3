//! Where the search for a free address or port begins.

use sha2::{Digest, Sha256};

/// A number that depends on the key alone, so that most keys get the same address or port again, and on all hosts.
#[must_use]
pub fn first_choice(key: &str) -> u32 {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    u32::from_be_bytes([a, b, c, d])
}
