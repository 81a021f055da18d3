//! What a voter must find again after a restart, as records that are appended.

use pmd_protocol::peer::claims::{Ballot, Change, Epoch, Founding, Position, Table};
use serde::{Deserialize, Serialize};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The store is new. The first record of each store that was not compacted.
    Created {
        /// Identifies the store.
        store: u64,
    },
    /// The daemon has started.
    Started(Epoch),
    /// Who votes.
    Founded(Founding),
    /// A promise to accept nothing from lower ballots.
    Promised(Ballot),
    /// Changes of the table were accepted.
    Accepted {
        /// The resulting position, whose ballot is promised as well.
        to: Position,
        /// The changes of the table before.
        changes: Vec<Change>,
    },
    /// A whole table was accepted.
    Image {
        /// Its position, whose ballot is promised as well.
        to: Position,
        /// The table.
        table: Table,
    },
    /// The store was found to be older than what its voter has told others: it must never vote again.
    RolledBack,
    /// Everything that the records before have led to.
    Snapshot(Box<Stored>),
}

impl Record {
    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Plain data always has a form.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads a record.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(record, _)| record)
    }
}

/// What the records lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Identifies the store.
    pub store: u64,
    /// The latest start.
    pub epoch: Epoch,
    /// Who votes, once it is decided.
    pub founding: Option<Founding>,
    /// The highest ballot that was promised.
    pub promised: Ballot,
    /// The position of the table that was accepted last.
    pub accepted: Position,
    /// That table.
    pub table: Table,
    /// See [`Record::RolledBack`].
    pub rolled_back: bool,
}

/// The records contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its records contradict each other")]
pub struct Inconsistent;

impl Stored {
    /// An empty store.
    #[must_use]
    pub fn new(store: u64) -> Stored {
        Stored {
            store,
            epoch: Epoch::default(),
            founding: None,
            promised: Ballot::default(),
            accepted: Position::default(),
            table: Table::new(0),
            rolled_back: false,
        }
    }

    /// Reads all records of a store; none if there are none.
    ///
    /// # Errors
    ///
    /// If they cannot have been written by a voter.
    pub fn replay(records: impl IntoIterator<Item = Record>) -> Result<Option<Stored>, Inconsistent> {
        let mut stored: Option<Stored> = None;
        for record in records {
            match (&mut stored, record) {
                (stored @ None, Record::Created { store }) => *stored = Some(Stored::new(store)),
                (stored @ None, Record::Snapshot(snapshot)) => *stored = Some(*snapshot),
                (Some(stored), record) => stored.apply(record)?,
                (None, _) => return Err(Inconsistent),
            }
        }
        Ok(stored)
    }

    /// Applies a record.
    ///
    /// # Errors
    ///
    /// If a voter in this state does not write it.
    pub fn apply(&mut self, record: Record) -> Result<(), Inconsistent> {
        match record {
            Record::Created { .. } | Record::Snapshot(_) => return Err(Inconsistent),
            Record::Started(epoch) if epoch.starts > self.epoch.starts => self.epoch = epoch,
            Record::Founded(founding) if self.founding.is_none() => {
                self.table = Table::new(founding.number);
                self.founding = Some(founding);
            }
            Record::Promised(ballot) if ballot > self.promised => self.promised = ballot,
            Record::Accepted { to, changes } if to > self.accepted && to.ballot >= self.promised => {
                for change in &changes {
                    self.table.apply(change);
                }
                (self.accepted, self.promised) = (to, to.ballot);
            }
            Record::Image { to, table } if to > self.accepted && to.ballot >= self.promised => {
                (self.accepted, self.promised, self.table) = (to, to.ballot, table);
            }
            Record::RolledBack => self.rolled_back = true,
            _ => return Err(Inconsistent),
        }
        Ok(())
    }
}
