//! The protocols spoken between daemons, selected by ALPN. Each module that serves one registers it here, so this layer
//! does not depend on its users.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use super::handshake::ProvenPeer;
use crate::base::permit::Permit;

/// A future that serves one connection until it ends.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A protocol spoken over a connection whose peer has completed the handshake.
pub trait Protocol: Debug + Send + Sync {
    /// The ALPN that peers request (RFC 7301).
    fn alpn(&self) -> &'static [u8];

    /// Serves a connection opened by a peer. The permit is held until the connection closes.
    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving;
}

/// The protocols that this daemon serves.
#[derive(Debug, Clone)]
pub struct Protocols(Arc<[Arc<dyn Protocol>]>);

impl Protocols {
    /// Creates the set of protocols that a daemon serves.
    #[must_use]
    pub fn new(protocols: Vec<Arc<dyn Protocol>>) -> Protocols {
        Protocols(protocols.into())
    }

    /// Finds the protocol with this ALPN.
    #[must_use]
    pub fn find(&self, alpn: &[u8]) -> Option<&Arc<dyn Protocol>> {
        self.0.iter().find(|protocol| protocol.alpn() == alpn)
    }
}
