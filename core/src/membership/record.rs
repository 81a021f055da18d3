//! Records of members, and their encoding.
//!
//! Records are encoded one after the other, without sender or receiver: the meaning of a record does not depend on its
//! sender.

use pmd_protocol::limits::{MAX_ADDRESSES, MAX_MEMBERSHIP};
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::facts::About;

/// The state of a member, according to one of its peers or to the member itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// It is alive.
    Alive,
    /// It could not be reached, and may refute the suspicion.
    Suspect,
    /// It has failed, or has left.
    Down,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The member, in one generation and renewal.
    pub identity: Identity,
    /// The number of suspicions that the member has refuted under this identity.
    pub incarnation: u32,
    /// Its state.
    pub state: State,
}

/// The precedence of a record: the record of a member with the greater standing counts.
///
/// A later generation overrides everything of an earlier one, and so does a renewal within a generation. Under one
/// identity, `Down` is final; below it, a higher incarnation overrides a lower one, and `Suspect` overrides `Alive`
/// (SWIM, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    generation: Generation,
    renewal: u32,
    rank: u64,
}

impl Record {
    /// The record of a member that is alive.
    #[must_use]
    pub fn alive(identity: Identity) -> Self {
        Self { identity, incarnation: 0, state: State::Alive }
    }

    /// The precedence of the record, see [`Standing`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        let while_live = u64::from(self.incarnation) * 2;
        let rank = match self.state {
            State::Alive => while_live,
            State::Suspect => while_live + 1,
            State::Down => u64::MAX,
        };
        Standing { generation: self.identity.generation, renewal: self.identity.renewal, rank }
    }

    /// The state of the member if it is live.
    #[must_use]
    pub fn liveness(&self) -> Option<Liveness> {
        match self.state {
            State::Alive => Some(Liveness::Alive),
            State::Suspect => Some(Liveness::Suspect),
            State::Down => None,
        }
    }

    /// Whether the member is live: alive or suspected.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != State::Down
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
        self.rank == u64::MAX
    }

    /// Whether both belong to the same identity but only one of them is down.
    #[must_use]
    pub fn differs_in_liveness(&self, other: &Self) -> bool {
        (self.generation, self.renewal) == (other.generation, other.renewal)
            && self.is_down() != other.is_down()
    }
}

/// The bytes are not a list of records. Receivers ignore them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed membership records")]
pub struct RecordError;

/// Encodes as many of these records as fit into `budget` bytes, but at least the first. Returns the bytes and the
/// number of records.
#[must_use]
pub fn encode<'a>(records: impl IntoIterator<Item = &'a Record>, budget: usize) -> (Vec<u8>, usize) {
    let limit = budget.min(MAX_MEMBERSHIP);
    let (mut all, mut count) = (Vec::new(), 0);
    for record in records {
        // Writing to memory cannot fail for this type.
        let bytes = postcard::to_allocvec(record).unwrap_or_default();
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
        let (record, rest) = postcard::take_from_bytes::<Record>(bytes).map_err(|_| RecordError)?;
        if record.identity.addresses.len() > MAX_ADDRESSES {
            return Err(RecordError);
        }
        records.push(record);
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
        let mut identity =
            Identity::new(NodeId::new([number; 32]), generation, &[([10, 0, 0, number], 4369).into()]);
        identity.renewal = renewal;
        Record { identity, incarnation, state }
    }

    #[test]
    fn records_are_ordered_as_in_swim() {
        use State::{Alive, Down, Suspect};
        let order = [
            (0, 0, Alive),
            (0, 0, Suspect),
            (0, 1, Alive),
            (0, 1, Suspect),
            (0, u32::MAX, Suspect),
            (0, 0, Down),
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
        assert!(bytes.len() / count <= 70, "{}", bytes.len() / count);
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
