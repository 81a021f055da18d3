//! The identity of a member in the membership protocol.

use std::net::SocketAddr;

use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

/// One daemon in one of its generations.
///
/// Of two identities of one daemon the later counts: that of a later generation, or of a later renewal in the same
/// generation. A daemon renews itself when it learns that it was declared dead. That does not begin a new generation, so
/// its registrations stay valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The daemon.
    pub id: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// How often it was declared dead, or changed its addresses, in this generation.
    pub renewal: u32,
    /// The addresses it can be reached at, best first; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

impl Identity {
    /// A daemon at the beginning of a generation. Addresses that nobody can dial (0.0.0.0, port 0) and those beyond
    /// [`MAX_ADDRESSES`] are left out.
    #[must_use]
    pub fn new(id: NodeId, generation: Generation, addresses: &[SocketAddr]) -> Self {
        let usable = addresses.iter().filter(|address| !address.ip().is_unspecified() && address.port() != 0);
        Self { id, generation, renewal: 0, addresses: usable.take(MAX_ADDRESSES).copied().collect() }
    }
}
