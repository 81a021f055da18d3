//! The identity of a member in the membership protocol.

use std::net::SocketAddr;

use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

/// A daemon in one of its generations.
///
/// The later of two identities of one daemon counts: the one with the later generation or, in the same generation, the
/// later renewal. A daemon renews itself when it learns that it was declared dead. That does not begin a new
/// generation, so its registrations stay valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The daemon.
    pub id: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// How often it was declared dead, or changed its addresses, in this generation.
    pub renewal: u32,
    /// The addresses it can be reached at, in order of preference; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

impl Identity {
    /// A daemon at the beginning of a generation. Addresses that cannot be dialled (0.0.0.0, port 0) and those beyond
    /// [`MAX_ADDRESSES`] are omitted.
    #[must_use]
    pub fn new(id: NodeId, generation: Generation, addresses: &[SocketAddr]) -> Self {
        let usable = addresses.iter().filter(|address| !address.ip().is_unspecified() && address.port() != 0);
        Self { id, generation, renewal: 0, addresses: usable.take(MAX_ADDRESSES).copied().collect() }
    }
}
