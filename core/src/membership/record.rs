//! Records of members, and packets of them.
//!
//! A packet is one record after the other until its end; nothing about sender or receiver is in it, because a record
//! means the same whoever tells it.

use pmd_protocol::limits::{MAX_ADDRESSES, MAX_MEMBERSHIP};
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::facts::About;

/// How a member is, as one of its peers or the member itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// It lives.
    Alive,
    /// It could not be reached, and may object.
    Suspect,
    /// It is gone.
    Down,
}

/// How a live member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// As far as anybody knows, it lives.
    #[default]
    Alive,
    /// Somebody could not reach it, and it has not objected yet.
    Suspect,
}

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who, in which life and renewal of it.
    pub identity: Identity,
    /// How often the member has objected to suspicions under this identity.
    pub incarnation: u32,
    /// How it is.
    pub state: State,
}

/// What decides between two records of one member: the greater counts.
///
/// A later life beats everything of an earlier one, and so does a renewal within a life. Under one identity, death is
/// final; before it a higher incarnation beats a lower, and suspicion beats its absence (SWIM, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    generation: Generation,
    renewal: u32,
    rank: u64,
}

impl Record {
    /// Somebody who lives.
    #[must_use]
    pub fn alive(identity: Identity) -> Self {
        Self { identity, incarnation: 0, state: State::Alive }
    }

    /// See [`Standing`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        let before_death = u64::from(self.incarnation) * 2;
        let rank = match self.state {
            State::Alive => before_death,
            State::Suspect => before_death + 1,
            State::Down => u64::MAX,
        };
        Standing { generation: self.identity.generation, renewal: self.identity.renewal, rank }
    }

    /// How the member is, if it is not known to be gone.
    #[must_use]
    pub fn liveness(&self) -> Option<Liveness> {
        match self.state {
            State::Alive => Some(Liveness::Alive),
            State::Suspect => Some(Liveness::Suspect),
            State::Down => None,
        }
    }

    /// Whether it speaks of somebody who is not known to be gone.
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
    /// Whether it is that of somebody who is gone.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.rank == u64::MAX
    }

    /// Whether both are of one identity, and only one of them says that it is gone.
    #[must_use]
    pub fn differs_in_death(&self, other: &Self) -> bool {
        (self.generation, self.renewal) == (other.generation, other.renewal)
            && self.is_down() != other.is_down()
    }
}

/// A packet that is not one. To be counted; nothing else follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed membership packet")]
pub struct PacketError;

/// Packs records, as many of the first as fit into `budget` bytes and at least one; the packet and how many they are.
#[must_use]
pub fn pack<'a>(records: impl IntoIterator<Item = &'a Record>, budget: usize) -> (Vec<u8>, usize) {
    let limit = budget.min(MAX_MEMBERSHIP);
    let (mut packet, mut count) = (Vec::new(), 0);
    for record in records {
        // Writing to memory does not fail for a type like this one.
        let bytes = postcard::to_allocvec(record).unwrap_or_default();
        if count > 0 && packet.len() + bytes.len() > limit {
            break;
        }
        packet.extend_from_slice(&bytes);
        count += 1;
    }
    (packet, count)
}

/// Reads a packet.
///
/// # Errors
///
/// If it is not what [`pack`] makes.
pub fn unpack(mut packet: &[u8]) -> Result<Vec<Record>, PacketError> {
    let mut records = Vec::new();
    while !packet.is_empty() {
        let (record, rest) = postcard::take_from_bytes::<Record>(packet).map_err(|_| PacketError)?;
        if record.identity.addresses.len() > MAX_ADDRESSES {
            return Err(PacketError);
        }
        records.push(record);
        packet = rest;
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
    fn the_order_is_that_of_swim() {
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
    fn what_does_not_fit_waits() {
        let records: Vec<_> = (0..100).map(|number| record(number, 0, 0, State::Alive)).collect();
        let (packet, count) = pack(&records, 500);
        assert!(packet.len() <= 500 && count >= 5);
        assert_eq!(unpack(&packet), Ok(records[..count].to_vec()));
        assert_eq!(pack(&records, 0).1, 1, "one goes in any case");
        assert!(packet.len() / count <= 70, "{}", packet.len() / count);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(records) = unpack(&bytes) {
                let (packet, count) = pack(&records, usize::MAX);
                prop_assert_eq!(count, records.len());
                prop_assert_eq!(unpack(&packet), Ok(records));
            }
        }
    }
}
