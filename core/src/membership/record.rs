//! Records of members, and their encoding.
//!
//! Records are encoded one after the other, without sender or receiver: the meaning of a record does not depend on its
//! sender.

use std::net::SocketAddr;

use pmd_protocol::limits::{MAX_ADDRESSES, MAX_MEMBERSHIP};
use pmd_protocol::peer::{Attestation, Generation, NodeId, PublicKey, StatementHash};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::identity::Identity;
use crate::attest::{Signed, id_of};
use crate::facts::About;

/// The state of a member, according to one of its peers or to the member itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// It is alive.
    Alive,
    /// A peer could not reach it. It may refute that.
    Suspect,
    /// A peer considers it failed.
    Down,
    /// It has left, by its own statement.
    Left,
}

/// The state of a live member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// No member suspects it.
    #[default]
    Alive,
    /// It could not be reached and has not refuted the suspicion yet.
    Suspect,
}

/// What a daemon knows about one member.
///
/// All but the state is the member's own statement, with its signature. The state is its own as well if it is
/// [`State::Left`]; otherwise it is what others say, which nobody signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The member, in one generation and renewal.
    pub identity: Identity,
    /// How often the member has refuted suspicions under this identity.
    pub incarnation: u32,
    /// Its state.
    pub state: State,
    /// Its public key, of which its id is the hash.
    pub key: PublicKey,
    /// Its signature; empty until this daemon has signed its own record.
    pub attestation: Attestation,
}

/// A record as it is encoded. The id follows from the key.
#[derive(Serialize, Deserialize)]
struct Encoded {
    key: PublicKey,
    generation: Generation,
    renewal: u32,
    addresses: Vec<SocketAddr>,
    incarnation: u32,
    state: State,
    attestation: Attestation,
}

/// The precedence of a record: of two records of one member, the one with the greater standing counts.
///
/// What the member says counts first: a later generation overrides everything of an earlier one, a renewal everything
/// before it, and a higher incarnation everything that others have said about a lower one. Below that, `Suspect`
/// overrides `Alive` (SWIM, section 4.2), `Down` overrides both, and `Left` is the member's own last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    generation: Generation,
    renewal: u32,
    incarnation: u32,
    state: State,
}

impl Record {
    /// The record of a live member, which the member has not signed yet.
    #[must_use]
    pub fn alive(identity: Identity, key: PublicKey) -> Self {
        Self { identity, incarnation: 0, state: State::Alive, key, attestation: Attestation::default() }
    }

    /// The hash of what the member says about itself.
    #[must_use]
    pub fn statement(&self) -> StatementHash {
        let mut hash = Sha256::new_with_prefix(b"pmd member\0");
        let statement = (&self.identity, self.incarnation, self.state == State::Left);
        // Writing to memory cannot fail for these types.
        hash.update(postcard::to_allocvec(&statement).unwrap_or_default());
        StatementHash(hash.finalize().into())
    }

    /// The member's statements and its signature.
    #[must_use]
    pub fn signed(&self) -> Signed {
        Signed::with_member(self.statement(), &self.attestation)
    }

    /// The order of a member's own statements, which only the member can raise.
    #[must_use]
    pub fn statement_order(&self) -> (Generation, u32, u32, bool) {
        let Identity { generation, renewal, .. } = self.identity;
        (generation, renewal, self.incarnation, self.state == State::Left)
    }

    /// The same place in the order, with the statement of `known` in place of one that was not checked.
    #[must_use]
    pub fn with_statement_of(&self, known: &Self) -> Self {
        let Identity { generation, renewal, .. } = self.identity;
        let identity = Identity { generation, renewal, ..known.identity.clone() };
        Self { identity, incarnation: self.incarnation, state: self.state, ..known.clone() }
    }

    /// The precedence of the record, see [`Standing`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Identity { generation, renewal, .. } = self.identity;
        Standing { generation, renewal, incarnation: self.incarnation, state: self.state }
    }

    /// The state of the member if it is live.
    #[must_use]
    pub fn liveness(&self) -> Option<Liveness> {
        match self.state {
            State::Alive => Some(Liveness::Alive),
            State::Suspect => Some(Liveness::Suspect),
            State::Down | State::Left => None,
        }
    }

    /// Whether the member is live: alive or suspected.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.liveness().is_some()
    }
}

impl About for Record {
    fn about(&self) -> &NodeId {
        &self.identity.id
    }
}

impl Standing {
    /// Whether the member is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state >= State::Down
    }

    /// Whether both belong to the same identity but only one of them is down.
    #[must_use]
    pub fn differs_in_liveness(&self, other: &Self) -> bool {
        (self.generation, self.renewal) == (other.generation, other.renewal)
            && self.is_down() != other.is_down()
    }
}

impl From<&Record> for Encoded {
    fn from(record: &Record) -> Self {
        let Record { identity, incarnation, state, key, attestation } = record.clone();
        let Identity { generation, renewal, addresses, .. } = identity;
        Self { key, generation, renewal, addresses, incarnation, state, attestation }
    }
}

impl From<Encoded> for Record {
    fn from(encoded: Encoded) -> Self {
        let Encoded { key, generation, renewal, addresses, incarnation, state, attestation } = encoded;
        let identity = Identity { id: id_of(&key), generation, renewal, addresses };
        Self { identity, incarnation, state, key, attestation }
    }
}

/// Why records are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not a list of records.
    #[error("malformed membership records")]
    Malformed,
    /// A record says something in the name of this member that the member has not signed.
    #[error("a statement that its member has not signed")]
    Forged(NodeId),
}

/// Encodes as many of these records as fit into `budget` bytes, but at least the first. Returns the bytes and the
/// number of records.
#[must_use]
pub fn encode<'a>(records: impl IntoIterator<Item = &'a Record>, budget: usize) -> (Vec<u8>, usize) {
    let limit = budget.min(MAX_MEMBERSHIP);
    let (mut all, mut count) = (Vec::new(), 0);
    for record in records {
        // Writing to memory cannot fail for this type.
        let bytes = postcard::to_allocvec(&Encoded::from(record)).unwrap_or_default();
        if count > 0 && all.len() + bytes.len() > limit {
            break;
        }
        all.extend_from_slice(&bytes);
        count += 1;
    }
    (all, count)
}

/// Decodes a list of records.
///
/// # Errors
///
/// If the bytes are not a list as returned by [`encode`].
pub fn decode(mut bytes: &[u8]) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) =
            postcard::take_from_bytes::<Encoded>(bytes).map_err(|_| RecordError::Malformed)?;
        if record.addresses.len() > MAX_ADDRESSES {
            return Err(RecordError::Malformed);
        }
        records.push(record.into());
        bytes = rest;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record(number: u8, renewal: u32, incarnation: u32, state: State) -> Record {
        let generation = Generation { boot_ms: 5, nonce: 5 };
        let key = PublicKey::new(&[number; 32]).unwrap_or_default();
        let mut identity = Identity::new(id_of(&key), generation, &[([10, 0, 0, number], 4369).into()]);
        identity.renewal = renewal;
        Record { incarnation, state, ..Record::alive(identity, key) }
    }

    #[test]
    fn records_are_ordered_as_in_swim() {
        use State::{Alive, Down, Left, Suspect};
        let order = [
            (0, 0, Alive),
            (0, 0, Suspect),
            (0, 1, Alive),
            (0, 1, Suspect),
            (0, 1, Down),
            (0, 2, Alive),
            (0, u32::MAX, Left),
            (1, 0, Alive),
        ];
        let standings =
            order.map(|(renewal, incarnation, state)| record(1, renewal, incarnation, state).standing());
        assert!(standings.is_sorted_by(|a, b| a < b), "{standings:?}");
        let mut later = record(1, 0, 0, Alive);
        later.identity.generation.boot_ms = 6;
        assert!(standings.iter().all(|standing| *standing < later.standing()));
    }

    #[test]
    fn records_beyond_the_budget_are_left_out() {
        let records: Vec<_> = (0..100).map(|number| record(number, 0, 0, State::Alive)).collect();
        let (bytes, count) = encode(&records, 500);
        assert!(bytes.len() <= 500 && count >= 5);
        assert_eq!(decode(&bytes), Ok(records[..count].to_vec()));
        assert_eq!(encode(&records, 0).1, 1, "at least one record");
        assert!(bytes.len() / count <= 110, "{}", bytes.len() / count);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(records) = decode(&bytes) {
                let (bytes, count) = encode(&records, usize::MAX);
                prop_assert_eq!(count, records.len());
                prop_assert_eq!(decode(&bytes), Ok(records));
            }
        }
    }
}
