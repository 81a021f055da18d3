//! Replicated operations on the registry, as bounded byte strings.
//!
//! Replication does not interpret entries. An entry that a daemon cannot read, because a newer version wrote it or
//! because it is garbage, is stored, compared and forwarded like any other, and only omitted from that daemon's
//! lookups. Versions can therefore be mixed in one cluster, and no entry can make replicas diverge.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{MAX_KEY_NAME, MAX_VALUE};

/// The kind of an entry. Newer versions may have kinds other than these constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind(pub u8);

impl Kind {
    /// The daemon itself: one entry, without a name.
    pub const HOST: Self = Self(0);
    /// An Erlang node.
    pub const NAME: Self = Self(1);
    /// A service.
    pub const SERVICE: Self = Self(2);
}

/// The key of an entry, unique within its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    kind: Kind,
    #[serde(serialize_with = "name_bytes", deserialize_with = "bounded_name")]
    name: Box<[u8]>,
    instance: u64,
}

/// The name is too long for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("name of {0} bytes is longer than {MAX_KEY_NAME}")]
pub struct KeyError(usize);

impl Key {
    /// The key of `name`. `instance` distinguishes entries with the same name, and is 0 where only one is possible.
    ///
    /// # Errors
    ///
    /// If the name is longer than [`MAX_KEY_NAME`].
    pub fn new(kind: Kind, name: &[u8], instance: u64) -> Result<Self, KeyError> {
        if name.len() > MAX_KEY_NAME {
            return Err(KeyError(name.len()));
        }
        Ok(Self { kind, name: name.into(), instance })
    }

    /// The kind of the entry.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name of the entry.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Distinguishes entries with the same name.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }
}

/// The value of an entry: bytes that [`Entry`](super::Entry) can read. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Arc<[u8]>);

/// The bytes are too many for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value of {0} bytes is longer than {MAX_VALUE}")]
pub struct ValueError(usize);

impl Value {
    /// A value of these bytes.
    ///
    /// # Errors
    ///
    /// If there are more than [`MAX_VALUE`].
    pub fn new(bytes: &[u8]) -> Result<Self, ValueError> {
        if bytes.len() > MAX_VALUE {
            return Err(ValueError(bytes.len()));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.0.escape_ascii())
    }
}

/// One operation of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets the key to this value.
    Put(Key, Value),
    /// Deletes the key.
    Delete(Key),
}

impl Op {
    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// The maximum number of bytes that it takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        // Tag, kind, instance (10), the preceding version (10), and two lengths (3 each).
        const FIXED: usize = 28;
        FIXED
            + match self {
                Self::Put(key, value) => key.name.len() + value.0.len(),
                Self::Delete(key) => key.name.len(),
            }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Self::new(bytes).map_err(de::Error::custom)
    }
}

fn name_bytes<S: Serializer>(name: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(name)
}

/// Borrows the bytes from the input, so that nothing is allocated before their number has been checked.
fn bounded_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
    let name = <&[u8]>::deserialize(deserializer)?;
    if name.len() > MAX_KEY_NAME {
        return Err(de::Error::custom(KeyError(name.len())));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert!(Key::new(Kind::NAME, &[b'a'; MAX_KEY_NAME], 0).is_ok());
        assert_eq!(Key::new(Kind::NAME, &[b'a'; MAX_KEY_NAME + 1], 0), Err(KeyError(MAX_KEY_NAME + 1)));
        assert!(Value::new(&[0; MAX_VALUE]).is_ok());
        assert_eq!(Value::new(&[0; MAX_VALUE + 1]), Err(ValueError(MAX_VALUE + 1)));
    }
}
