//! Members as the membership protocol names them.

use std::net::SocketAddr;

use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::{Generation, NodeId};
use serde::{Deserialize, Serialize};

/// One daemon in one of its lives.
///
/// Two identities of one daemon compete, and the later wins: a later life, or in the same life a later renewal. A
/// daemon renews itself when it hears that it was declared dead, which it can do without giving up its life, so that
/// what it has registered stays valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub id: NodeId,
    /// Which life.
    pub generation: Generation,
    /// How often it was declared dead in this life, or has moved.
    pub renewal: u32,
    /// Where it can be reached, best first; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

impl Identity {
    /// A daemon at the beginning of a life. Addresses that lead nowhere (0.0.0.0, port 0) are left out, and those
    /// beyond [`MAX_ADDRESSES`].
    #[must_use]
    pub fn new(id: NodeId, generation: Generation, addresses: &[SocketAddr]) -> Self {
        let usable = addresses.iter().filter(|address| !address.ip().is_unspecified() && address.port() != 0);
        Self { id, generation, renewal: 0, addresses: usable.take(MAX_ADDRESSES).copied().collect() }
    }
}
