//! Changes of the member table.

use pmd_protocol::peer::{Generation, NodeId};

use super::identity::Identity;
use super::record::Liveness;

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// The record of a member, or of this daemon, is new and must be sent to all members.
    News {
        /// The member.
        id: NodeId,
    },
    /// A member is live: it is new, has come back, or its generation or state has changed.
    Up {
        /// The member.
        identity: Identity,
        /// Its state.
        liveness: Liveness,
        /// Its previous generation and state, if it was live before.
        before: Option<(Generation, Liveness)>,
    },
    /// A member is down.
    Down {
        /// The member.
        identity: Identity,
    },
    /// This daemon was declared dead and has renewed its identity.
    Renewed {
        /// Its new identity.
        identity: Identity,
    },
    /// This daemon was suspected and has refuted it.
    Refuted,
    /// A new member was left out, because the table is full.
    Full,
    /// Others know a later generation of this daemon's identity than its own. It must begin a new one.
    LaterGeneration {
        /// The identity in that generation.
        identity: Identity,
    },
}
