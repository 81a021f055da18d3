//! The rules that a peer can break, so that an operator is told which one it was.

use std::fmt;

use crate::replica::content::ApplyError;

/// What a peer has done that no correct daemon does. Its link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// It has said something in the name of a member that this member has not signed.
    ForgedStatement,
    /// It has sent entries that their host has not signed.
    ForgedEntries,
    /// It has sent operations that do not lead to what their host has signed.
    AlteredEntries,
    /// It has sent entries that are malformed or more than one host may have.
    BadEntries(&'static str),
    /// Its entries name another host than its handshake.
    OtherHostName,
    /// It has sent a decision about a member that its author has not signed.
    ForgedDecision,
    /// It has sent a list of revoked certificates that their authority has not signed.
    ForgedList,
    /// It has sent bytes that are no frame.
    NoFrame,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForgedStatement => f.write_str("it sent a statement that its member has not signed"),
            Self::ForgedEntries => f.write_str("it sent entries that their host has not signed"),
            Self::AlteredEntries => {
                f.write_str("it sent entries other than those that their host has signed")
            }
            Self::BadEntries(what) => write!(f, "it sent entries that are not allowed: {what}"),
            Self::OtherHostName => f.write_str("its entries name another host than its handshake"),
            Self::ForgedDecision => f.write_str("it sent a decision that its author has not signed"),
            Self::ForgedList => {
                f.write_str("it sent a list of revoked certificates that the authority has not signed")
            }
            Self::NoFrame => f.write_str("it sent bytes that are no frame"),
        }
    }
}

impl From<ApplyError> for Rule {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Malformed(what) => Self::BadEntries(what),
            ApplyError::Forged => Self::ForgedEntries,
            ApplyError::Contradiction => Self::AlteredEntries,
        }
    }
}
