//! The protocols that daemons speak with each other, by their ALPN: whoever serves one registers it here, so that links
//! need not know who uses them.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use super::handshake::ProvenPeer;
use crate::base::permit::Permit;

/// A future that serves one connection until it ends.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A protocol spoken over a connection whose peer has completed the handshake.
pub trait Protocol: Debug + Send + Sync {
    /// The ALPN that peers ask for (RFC 7301).
    fn alpn(&self) -> &'static [u8];

    /// Serves a connection that a peer has opened. The permit is held for as long as the connection is open.
    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving;
}

/// The protocols that this daemon serves.
#[derive(Debug, Clone)]
pub struct Protocols(Arc<[Arc<dyn Protocol>]>);

impl Protocols {
    /// A daemon that serves these.
    #[must_use]
    pub fn new(protocols: Vec<Arc<dyn Protocol>>) -> Protocols {
        Protocols(protocols.into())
    }

    /// The protocol with this ALPN.
    #[must_use]
    pub fn find(&self, alpn: &[u8]) -> Option<&Arc<dyn Protocol>> {
        self.0.iter().find(|protocol| protocol.alpn() == alpn)
    }
}
