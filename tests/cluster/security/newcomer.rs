//! A daemon without a core: it completes the handshakes of the real one, and then the test decides what it says.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use pmd::auth::cookie::Cookies;
use pmd::auth::tls::Tls;
use pmd::base::clock::now_ms;
use pmd::config::types::IdentitySource;
use pmd::link::connection::Connection;
use pmd::link::dial::Dialer;
use pmd::link::handshake::ProvenPeer;
use pmd::link::local_identity::LocalIdentity;
use pmd_core::membership::Identity;
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::Generation;
use tokio::sync::watch;

use super::liar::own_key;
use crate::machine::PORT;
use crate::world::{PATIENCE, World};

/// The daemon.
#[derive(Debug)]
pub(super) struct Newcomer {
    local: Arc<LocalIdentity>,
    /// Its key.
    pub(super) tls: Arc<Tls>,
}

impl Newcomer {
    /// A daemon with a key of its own that knows the cluster secret.
    pub(super) fn new(world: &World, name: &str, cookies: &Arc<Cookies>) -> Newcomer {
        let folder = world.shared(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Newcomer::with(name, &own_key(&folder), cookies)
    }

    /// A daemon with this key, or with this certificate for its name, that knows the cluster secret.
    pub(super) fn with(name: &str, source: &IdentitySource, cookies: &Arc<Cookies>) -> Newcomer {
        let tls = Arc::new(Tls::load(source, name).expect("an identity"));
        let identity = Identity::new(tls.id(), Generation { boot_ms: now_ms(), nonce: 7 }, &[]);
        let (_, identity) = watch::channel(identity);
        let host = name.parse().expect("a host name");
        let own = Arc::clone(&tls);
        let local = LocalIdentity::new("pmd".into(), host, identity, own, Arc::clone(cookies));
        Newcomer { local: Arc::new(local), tls }
    }

    /// Its identity, as in its handshakes.
    pub(super) fn identity(&self) -> Identity {
        self.local.identity()
    }

    /// Opens a connection from the host `from` to the first one, which has proven itself when this returns.
    pub(super) fn dial(&self, world: &World, from: usize, alpn: &'static [u8]) -> Result<ProvenPeer, String> {
        self.dial_to(world, (from, 0), alpn)
    }

    /// Opens a connection from one host to another.
    pub(super) fn dial_to(
        &self,
        world: &World,
        (from, to): (usize, usize),
        alpn: &'static [u8],
    ) -> Result<ProvenPeer, String> {
        let address: SocketAddr = (world[to].ip, PORT).into();
        let socket = world.site(from).cell.run(move || TcpStream::connect(address));
        let socket = socket.map_err(|error| error.to_string())?;
        world.block_on(async {
            socket.set_nonblocking(true).expect("a socket");
            let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
            let descriptors = Arc::new(Descriptors::new(1_024));
            let runtime = tokio::runtime::Handle::current();
            let dialer = Dialer::new(Arc::clone(&self.local), descriptors, Arc::default(), runtime);
            let proven = dialer.reach_over(Connection::new(socket, address, Vec::new()), None, alpn);
            let proven = tokio::time::timeout(PATIENCE, proven).await.map_err(|error| error.to_string())?;
            proven.map_err(|error| error.to_string())
        })
    }
}
