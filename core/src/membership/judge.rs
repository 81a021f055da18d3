//! What the member table needs to judge records that others have sent, and what it finds.

use std::sync::Arc;

use pmd_protocol::peer::NodeId;

use super::record::Record;

/// How the caller judges records that others have sent.
#[derive(Clone, Copy, Debug)]
pub struct Judge<G, F> {
    /// Whether the member has signed what the record says in its name.
    pub is_genuine: G,
    /// Whether this daemon hears a member itself, so that it need not believe others that the member is gone.
    pub is_heard: F,
    /// The peer that has sent them, which may introduce some new members; nobody may introduce any if there is none.
    pub introducer: Option<NodeId>,
    /// Records of generations that begin later than this are ignored; milliseconds since the Unix epoch.
    pub latest_ms: u64,
}

/// What came of records that another daemon has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The records: they are what their sender knows.
    pub known: Vec<Arc<Record>>,
    /// Accusations of members that this daemon hears itself. The accused have to be told.
    pub refuted: Vec<Arc<Record>>,
    /// Members whose records were ignored, because by this daemon's clock their generations begin in the future.
    pub future: Vec<NodeId>,
    /// How many new members were ignored because the peer has introduced too many.
    pub refused: usize,
}
