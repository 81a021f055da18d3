//! The identity of a daemon, its generation, and its version within that generation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A daemon: the SHA-256 of its public key, 32 bytes.
///
/// Ids are hashes and therefore uniformly distributed. The overlay and range reconciliation rely on their order being
/// effectively random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

/// The text is not a [`NodeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a daemon id has 64 hexadecimal digits")]
pub struct NodeIdError;

impl NodeId {
    /// The lowest id, where a range over all ids starts.
    pub const MIN: Self = Self([0; 32]);
    /// The highest id, where a range over all ids ends.
    pub const MAX: Self = Self([0xff; 32]);

    /// The id of the daemon whose public key has this SHA-256.
    #[must_use]
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// All 64 digits, or as many as the precision specifies, as in `{:.8}`.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// The first eight digits, which distinguish daemons in a log.
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.8}")
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 64 || !s.is_ascii() {
            return Err(NodeIdError);
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(s.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| NodeIdError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NodeIdError)?;
        }
        Ok(Self(hash))
    }
}

/// One run of a daemon, from its start to its end. A later start has a greater generation.
///
/// The random nonce distinguishes starts with the same clock time, such as two copies of one machine image that boot
/// together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// When the daemon started, in milliseconds since the Unix epoch by its own clock. Only compared with other
    /// generations of the same daemon.
    pub boot_ms: u64,
    /// A random number.
    pub nonce: u64,
}

impl Generation {
    /// The smallest generation that is later than this one. For a daemon that must begin a new generation while
    /// running, because others know operations of the current one that it does not.
    #[must_use]
    pub fn renewed(self, now_ms: u64, nonce: u64) -> Self {
        Self { boot_ms: now_ms.max(self.boot_ms.saturating_add(1)), nonce }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04x}", self.boot_ms, self.nonce & 0xffff)
    }
}

/// The number of operations that a daemon has carried out in one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    /// The version before the first operation.
    pub const ZERO: Self = Self(0);

    /// The version after one more operation. It saturates, but only after half a million years at a million operations
    /// a second.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sum of SHA-256 hashes modulo 2^256: the digest of a set, regardless of its order.
///
/// Elements can be added and removed, so the cost of an update depends on the change, not on the set. It detects
/// accidents (two daemons with one identity, lost updates), not attacks: an attacker who can choose many elements can
/// construct collisions (D. Wagner, "A Generalized Birthday Problem", 2002), but only a proven member of the cluster
/// can do that.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of the empty set.
    pub const EMPTY: Self = Self([0; 32]);

    /// The digest of one element with this SHA-256.
    #[must_use]
    pub const fn of(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The sum in big-endian order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest with the elements of `other` added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self.0;
        let mut carry = false;
        for (byte, add) in sum.iter_mut().zip(other.0).rev() {
            let (first, over) = byte.overflowing_add(add);
            let (second, over_again) = first.overflowing_add(u8::from(carry));
            *byte = second;
            carry = over || over_again;
        }
        Self(sum)
    }

    /// The digest with the elements of `other` removed.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let mut rest = self.0;
        let mut borrow = false;
        for (byte, sub) in rest.iter_mut().zip(other.0).rev() {
            let (first, under) = byte.overflowing_sub(sub);
            let (second, under_again) = first.overflowing_sub(u8::from(borrow));
            *byte = second;
            borrow = under || under_again;
        }
        Self(rest)
    }
}

/// All 64 digits, or as many as the precision specifies.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.8}")
    }
}

/// The version of one origin's content, by which replicas are ordered.
///
/// The order is that of the fields. Generation and version decide as long as every daemon has its own identity. The
/// digest of the content makes the order total even if two daemons write under one identity, so that all replicas still
/// agree on one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The generation of the origin.
    pub generation: Generation,
    /// The number of its operations in that generation.
    pub version: Version,
    /// The digest of the resulting entries.
    pub digest: Digest,
}

impl Stamp {
    /// The stamp at the beginning of a generation.
    #[must_use]
    pub const fn start(generation: Generation) -> Self {
        Self { generation, version: Version::ZERO, digest: Digest::EMPTY }
    }

    /// Whether both claim the same version of the same generation, with different content.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        self.generation == other.generation && self.version == other.version && self.digest != other.digest
    }
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digits = f.precision().unwrap_or(64);
    for (index, byte) in bytes.iter().enumerate() {
        match digits.saturating_sub(2 * index) {
            0 => break,
            1 => write!(f, "{:x}", byte >> 4)?,
            _ => write!(f, "{byte:02x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn id_as_text_and_back() {
        let mut hash = [0; 32];
        hash[0] = 0xab;
        hash[1] = 0xc0;
        let id = NodeId::new(hash);
        assert_eq!(format!("{id:.3}"), "abc");
        assert_eq!(format!("{id:?}"), "abc00000");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("ab".parse::<NodeId>(), Err(NodeIdError));
        assert_eq!("é".repeat(32).parse::<NodeId>(), Err(NodeIdError));
    }

    #[test]
    fn a_renewed_generation_wins_against_any_clock() {
        let old = Generation { boot_ms: 1_000, nonce: u64::MAX };
        assert!(old.renewed(0, 0) > old);
        assert!(old.renewed(5_000, 0) > old);
        assert_eq!(old.renewed(5_000, 7), Generation { boot_ms: 5_000, nonce: 7 });
    }

    proptest! {
        #[test]
        fn a_digest_is_a_sum(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let (a, b, c) = (Digest::of(a), Digest::of(b), Digest::of(c));
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(b).plus(c), a.plus(b.plus(c)));
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a.minus(b).plus(b), a);
            prop_assert_eq!(a.plus(Digest::EMPTY), a);
        }
    }
}
