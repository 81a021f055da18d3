//! Frames about claims, on connections of their own between members and voters.
//!
//! Voters agree on one [`Table`] of claims. They need not agree on a log of changes: each accepts whole tables, of which
//! a later one contains the changes of the earlier ones, and sends only the changes to a peer that has the table before
//! them.

mod name;
mod table;

use serde::{Deserialize, Serialize};

pub use name::{ClaimName, ClaimNameError};
pub use table::{Change, Claim, Lease, Table};

use super::bounded;
use super::id::NodeId;
use crate::limits::{MAX_CLAIMS, MAX_CLAIMS_FRAME, MAX_HOST_NAME, MAX_VOTERS};

/// A proposer's number: the higher one wins. Each is used by one voter alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts up.
    pub round: u64,
    /// The index of the voter that uses it.
    pub voter: u8,
}

/// Identifies a table: two that have the same position are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The ballot under which it was proposed.
    pub ballot: Ballot,
    /// Counts the tables, of all ballots.
    pub version: u64,
}

/// One start of a voter's daemon. A store that was replaced by an older copy of itself shows in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts the starts with this store.
    pub starts: u64,
    /// Random: two starts of copies of one store differ in it.
    pub nonce: u64,
}

/// A voter, as recorded in the founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// Its host name; at most [`MAX_HOST_NAME`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_HOST_NAME>")]
    pub host: String,
    /// Its daemon.
    pub id: NodeId,
    /// Its store: a new one on the same host is no voter.
    pub store: u64,
}

/// Who votes, decided once by all voters together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Random, so that no two foundings are confused.
    pub tag: u64,
    /// The upper part of all claim numbers.
    pub number: u64,
    /// The voters, in the order of their names; at most [`MAX_VOTERS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_VOTERS>")]
    pub voters: Vec<Voter>,
}

/// A message between voters of one founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// Asks whether others would support this ballot.
    Canvass(Ballot),
    /// The sender hears no leader either.
    Support(Ballot),
    /// Asks for the promise to accept nothing from lower ballots.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// The table that the sender has.
        accepted: Position,
    },
    /// That promise.
    Promise {
        /// The ballot.
        ballot: Ballot,
        /// The last table that the sender has accepted.
        accepted: Position,
        /// That table, if it is newer than that of the proposer.
        table: Option<Table>,
    },
    /// Proposes the table that results from these changes.
    Accept {
        /// The table before the changes.
        from: Position,
        /// The table after them.
        to: Position,
        /// At most [`MAX_CLAIMS`].
        #[serde(deserialize_with = "bounded::vec::<_, _, MAX_CLAIMS>")]
        changes: Vec<Change>,
    },
    /// Proposes a whole table.
    Image {
        /// Its position.
        to: Position,
        /// The table.
        table: Table,
    },
    /// The sender has accepted this table.
    Accepted(Position),
    /// The sender cannot apply changes, because it has another table.
    Behind {
        /// The ballot of the changes.
        ballot: Ballot,
        /// The table that it has.
        accepted: Position,
    },
    /// The leader is there.
    Beat {
        /// Its ballot.
        ballot: Ballot,
        /// Counts its beats.
        round: u64,
        /// Its table.
        latest: Position,
    },
    /// The sender has promised nothing to a higher ballot when it got this beat.
    Heard {
        /// The ballot.
        ballot: Ballot,
        /// The number of the beat.
        round: u64,
    },
    /// The sender has promised a higher ballot.
    Refused(Ballot),
    /// A member's request, passed to the leader.
    Relay {
        /// The member.
        member: NodeId,
        /// Its request.
        request: Request,
    },
    /// The leader's answer to it.
    Relayed {
        /// The member.
        member: NodeId,
        /// The answer.
        reply: Reply,
    },
}

/// A request of a member to a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated in the reply.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What a member asks. The lease is that of the member itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// For a claim.
    Acquire {
        /// Its name.
        name: ClaimName,
        /// The start of the member's daemon, with which the lease began.
        start: u64,
        /// The duration of the lease.
        ttl_ms: u32,
        /// Distinguishes the claims of a lease.
        attempt: u64,
    },
    /// For more time for all claims of a lease.
    Renew {
        /// See [`Ask::Acquire`].
        start: u64,
        /// The duration of the lease.
        ttl_ms: u32,
        /// A digest of the attempts whose claims the member holds.
        digest: u64,
    },
    /// To free a claim.
    Release {
        /// See [`Ask::Acquire`].
        start: u64,
        /// The duration of the lease.
        ttl_ms: u32,
        /// The attempt.
        attempt: u64,
    },
    /// For the list of claims.
    List,
    /// How the voter itself is.
    Status,
}

/// The answer of a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request; 0 for a message that nobody asked for.
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

/// See [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The claim is held with this number.
    Granted(u64),
    /// Somebody else holds it.
    Busy(Claim),
    /// There are too many claims.
    Full,
    /// The lease is renewed for all claims of the digest.
    Renewed,
    /// The lease is renewed for these claims, attempt and number, which are not those of the digest.
    Differs(#[serde(deserialize_with = "bounded::vec::<_, _, MAX_CLAIMS>")] Vec<(u64, u64)>),
    /// The claim is free.
    Released,
    /// A claim that the member has asked for is free.
    Freed(ClaimName),
    /// All claims.
    Claims(Table),
    /// The voters have no leader at the moment.
    NoLeader,
    /// The state of the voter.
    Status(Status),
}

/// What a voter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It waits for the others, to decide with them who votes.
    Unfounded,
    /// It decides and grants.
    Leader,
    /// It votes.
    Follower,
    /// It votes, and does not know of a leader.
    Leaderless,
    /// It does not vote: its store is not the one that the others know.
    Stranger,
    /// It does not vote: its list of voters differs from that of the founding.
    ListDiffers,
    /// It does not vote: its store is older than what it has told others.
    RolledBack,
    /// It does not vote: its store does not work.
    Broken,
}

/// The state of a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it does.
    pub role: Role,
    /// The number of the founding; 0 if there is none.
    pub founding: u64,
    /// The table that it has accepted.
    pub accepted: Position,
    /// A digest of its list of voters.
    pub list: u64,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// A voter whose store is new is there.
    Unfounded {
        /// A digest of its list of voters.
        list: u64,
        /// Its store.
        store: u64,
    },
    /// Who votes.
    Found(Founding),
    /// The sender knows another store of the receiver.
    Stranger,
    /// What a voter has told others, which its store must still contain. Sent on each new connection.
    Greeting {
        /// The founding.
        tag: u64,
        /// The start of the sender.
        epoch: Epoch,
        /// The highest ballot that the sender has promised.
        promised: Ballot,
        /// The table that it has accepted.
        accepted: Position,
    },
    /// The sender knows nothing newer of the receiver's store than what it greeted with.
    Known {
        /// The start of the receiver that this is about.
        epoch: Epoch,
    },
    /// The store of the receiver is older than what it has told the sender before.
    RolledBack {
        /// The start of the receiver that this is about.
        epoch: Epoch,
    },
    /// A message between voters.
    Vote {
        /// The founding.
        tag: u64,
        /// The start of the sender.
        epoch: Epoch,
        /// The message.
        vote: Vote,
    },
    /// A member's request.
    Request(Request),
    /// The answer.
    Reply(Reply),
}

/// The bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame about claims")]
pub struct NotAFrame;

impl Frame {
    /// Appends the frame, without its length.
    pub fn encode(&self, into: &mut Vec<u8>) {
        // Plain data always has a form.
        into.extend(postcard::to_allocvec(self).unwrap_or_default());
    }

    /// Reads a frame of at most [`MAX_CLAIMS_FRAME`] bytes.
    ///
    /// # Errors
    ///
    /// If the bytes are not a frame.
    pub fn decode(bytes: &[u8]) -> Result<Frame, NotAFrame> {
        if bytes.len() > MAX_CLAIMS_FRAME {
            return Err(NotAFrame);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((frame, [])) => Ok(frame),
            _ => Err(NotAFrame),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

    use proptest::prelude::*;

    use super::*;

    /// The largest frame fits, so that a full table cannot stop the voters.
    #[test]
    fn a_full_table_fits_into_a_frame() {
        let mut table = Table::new(u64::MAX >> 24);
        let lease = Lease { member: NodeId::MAX, start: u64::MAX, ttl_ms: u32::MAX };
        for number in 0..MAX_CLAIMS {
            let name = format!("{number:0128}").parse().unwrap();
            let attempt = u64::MAX - u64::try_from(number).unwrap();
            table.apply(&Change::Grant { name, lease, attempt });
        }
        assert_eq!(table.claims().count(), MAX_CLAIMS);
        let ballot = Ballot { round: u64::MAX, voter: u8::MAX };
        let to = Position { ballot, version: u64::MAX };
        let epoch = Epoch { starts: u64::MAX, nonce: u64::MAX };
        let frame = Frame::Vote { tag: u64::MAX, epoch, vote: Vote::Image { to, table } };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(bytes.len() <= MAX_CLAIMS_FRAME, "{}", bytes.len());
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        bytes.push(0);
        assert_eq!(Frame::decode(&bytes), Err(NotAFrame));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic_and_what_is_read_is_written_again(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                let mut again = Vec::new();
                frame.encode(&mut again);
                prop_assert_eq!(Frame::decode(&again), Ok(frame));
            }
        }
    }
}
