//! Aliases (loopback addresses that represent other hosts) and tunnels to the nodes on those hosts.
//!
//! ```text
//!   node ──▶ 127.77.x.y:4369   "where is bar?"    answered here, on behalf of the alias's host
//!   node ──▶ 127.77.x.y:PORT ─▶ entry ══ TLS, pmd-tunnel/1 ══▶ exit ──▶ ADDRESS:PORT where bar listens, on its host
//! ```
//!
//! [`aliases`], [`hosts_file`], [`rules`], [`path`], [`dialback`] and [`inquiries`] are pure logic without I/O. [`sync`] follows the
//! cluster and writes the files for Erlang nodes. [`entry`] listens on the aliases, [`connect`] opens a tunnel to a
//! host, [`exit`] connects to its node where [`listener`] finds it, and [`pipe`] copies the bytes. [`relay`] opens the paths that are not direct.
//! [`asking`] asks other daemons what is registered on their hosts, and `answering` answers them. [`probe`] and [`tls_hello`] check whether a node answers. The nodes' own handshake, Erlang cookie and TLS pass through unchanged, end
//! to end.

pub mod aliases;
mod answering;
pub mod asking;
pub mod connect;
pub mod dialback;
mod direct;
pub mod entry;
pub mod exit;
pub mod hosts_file;
pub mod inquiries;
pub mod listener;
pub mod node_addresses;
pub mod path;
pub mod pipe;
mod port_owner;
pub mod probe;
pub mod proven;
mod reachability;
pub mod relay;
pub mod rendezvous;
pub mod responder;
pub mod rules;
pub mod state;
pub mod stream;
pub mod sync;
mod system_names;
pub mod table;
pub mod tls_hello;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::auth::tls::{ALPN_RELAY, ALPN_TUNNEL};
use crate::base::permit::Permit;
use crate::base::supervise::Supervisor;
use crate::link::handshake::ProvenPeer;
use crate::link::protocol::{Protocol, Serving};
use crate::link::session::{DialRequest, Heard};
use entry::TunnelEntrances;
use state::{Parts, Tunnels};

/// Starts the tasks that follow the cluster and serve dial-back requests.
#[must_use]
pub fn start(
    parts: Parts,
    mut dial_requests: mpsc::Receiver<DialRequest>,
    heard: mpsc::Receiver<Heard>,
    supervisor: &Supervisor,
) -> (Arc<Tunnels>, Arc<TunnelEntrances>) {
    if let Err(error) = sync::write_module(&parts.settings.module) {
        tracing::warn!("cannot write {}: {error}", parts.settings.module.display());
    }
    let tunnels = Arc::new(Tunnels::new(parts));
    let entrances = Arc::new(TunnelEntrances::new(Arc::clone(&tunnels)));
    supervisor.task("aliases", sync::run(Arc::clone(&entrances)));
    supervisor.task("reachability", direct::check_again(Arc::clone(&tunnels)));
    supervisor.task("exits", exit::watch_registrations(Arc::clone(&tunnels)));
    supervisor.task("questions", asking::hear(Arc::clone(&tunnels), heard));
    let for_requests = Arc::clone(&tunnels);
    supervisor.task("dial-back", async move {
        while let Some(DialRequest { peer, request }) = dial_requests.recv().await {
            relay::on_dial_request(&for_requests, peer, request);
        }
        // The channel closes when the core ends. The core is supervised on its own, so this is not reported as well.
        std::future::pending::<()>().await;
    });
    (tunnels, entrances)
}

/// The protocol of tunnels: this daemon is the exit, or requested the connection with a dial-back.
#[derive(Debug)]
pub struct TunnelProtocol(pub Arc<Tunnels>);

impl Protocol for TunnelProtocol {
    fn alpn(&self) -> &'static [u8] {
        ALPN_TUNNEL
    }

    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving {
        let tunnels = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, from) = (Arc::clone(&tunnels.parts.identity), [peer.credentials.clone()]);
            tokio::select! {
                () = exit::serve(peer, tunnels, "direct") => {}
                () = identity.until_barred(&from) => {}
            }
            drop(permit);
        })
    }
}

/// The protocol of connections to a relay.
#[derive(Debug)]
pub struct RelayProtocol(pub Arc<Tunnels>);

impl Protocol for RelayProtocol {
    fn alpn(&self) -> &'static [u8] {
        ALPN_RELAY
    }

    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving {
        let tunnels = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, from) = (Arc::clone(&tunnels.parts.identity), [peer.credentials.clone()]);
            tokio::select! {
                () = relay::serve(peer, tunnels) => {}
                () = identity.until_barred(&from) => {}
            }
            drop(permit);
        })
    }
}
