//! A server with registered names.

use anyhow::Result;

use crate::client::Request;
use crate::hold::{Holder, Kind};
use crate::options::Plan;
use crate::rounds::Contestant;
use crate::server::{Peer, Server};

/// A server with the names 0..names.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) server: Server,
    names: u32,
    _holder: Holder,
}

impl Registry {
    /// Starts `peer` with more `flags`, and registers the names.
    pub(crate) fn start(plan: &Plan, peer: Peer, names: u32, flags: &[&str]) -> Result<Registry> {
        let server = Server::start(plan, peer, flags)?;
        let holder = Holder::start(server.port(), Kind::Registered, names, 1)?;
        Ok(Registry { server, names, _holder: holder })
    }

    /// Lookups of the registered names.
    pub(crate) fn lookups(&self) -> Contestant<'_> {
        Contestant { server: &self.server, request: Request::Lookup { names: self.names } }
    }
}
