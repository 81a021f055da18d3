//! Signatures: what a daemon says about itself, in a form that others can pass on without being trusted.
//!
//! A daemon makes two statements. One is about itself as a member: its generation, its addresses, whether it has left.
//! The other is about its entries: their version and their digest. It signs the hashes of both together, so that a
//! receiver that gets both verifies one signature. Each statement travels with the hash of the other.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{MAX_PUBLIC_KEY, MAX_SIGNATURE};

/// Declares a byte string with a limit, which is shared and not copied.
macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<[u8]>);

        impl $name {
            /// These bytes; `None` if there are too many.
            #[must_use]
            pub fn new(bytes: &[u8]) -> Option<Self> {
                (bytes.len() <= $max).then(|| Self(bytes.into()))
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            /// Borrows the bytes from the input, so that nothing is allocated before their number has been checked.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <&[u8]>::deserialize(deserializer)?;
                Self::new(bytes).ok_or_else(|| de::Error::invalid_length(bytes.len(), &"fewer bytes"))
            }
        }
    };
}

byte_string! {
    /// A public key, as SubjectPublicKeyInfo in DER (RFC 5280, section 4.1.2.7); at most [`MAX_PUBLIC_KEY`] bytes. The id
    /// of a daemon is its SHA-256.
    PublicKey, MAX_PUBLIC_KEY
}

byte_string! {
    /// A signature, at most [`MAX_SIGNATURE`] bytes: the SignatureScheme of TLS 1.3 (RFC 8446, section 4.2.3) in two
    /// bytes, big-endian, and the signature in that scheme.
    Signature, MAX_SIGNATURE
}

/// The SHA-256 of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatementHash(pub [u8; 32]);

/// A daemon's signature of one of its statements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The hash of the other statement, which was signed together with this one.
    pub other: StatementHash,
    /// The signature of both.
    pub signature: Signature,
}
