//! Answers lookups at aliases for a daemon that does not listen on all addresses, so that each alias needs its own
//! listening socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_protocol::epmd::codec::{ServerCodec, ServerReply};
use pmd_protocol::epmd::{Alive2, Registration, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::codec::Framed;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::asking::TunnelInquirer;
use super::entry::TunnelEntrances;
use super::port_owner::{Owner, owner};
use crate::base::permit::Permit;
use crate::directory::{Entrances, Others};

/// Timeout for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of concurrent requests at one alias.
const REQUESTS: usize = 32;

/// The listening sockets, by alias; none if the daemon's own sockets cover the aliases.
#[derive(Debug)]
pub(super) struct Responders {
    entrances: Arc<TunnelEntrances>,
    /// Whether the daemon's own sockets listen on all IPv4 addresses.
    covered: bool,
    open: BTreeMap<Ipv4Addr, DropGuard>,
    /// The aliases on whose port another program listens, and its user.
    lost: BTreeMap<Ipv4Addr, u32>,
}

impl Responders {
    /// Creates responders without listening sockets.
    pub(super) fn new(entrances: Arc<TunnelEntrances>) -> Responders {
        let covered = entrances.tunnels().listens_everywhere();
        Responders { entrances, covered, open: BTreeMap::new(), lost: BTreeMap::new() }
    }

    /// Listens on exactly these aliases. Returns those on whose port a program of another process listens, with its
    /// user: nodes must not be sent there, because that program would answer them in the name of the alias's host.
    pub(super) fn listen_on(&mut self, aliases: BTreeSet<Ipv4Addr>) -> BTreeMap<Ipv4Addr, u32> {
        if self.covered {
            return BTreeMap::new();
        }
        self.open.retain(|alias, _| aliases.contains(alias));
        self.lost.retain(|alias, _| aliases.contains(alias));
        for alias in aliases {
            if self.open.contains_key(&alias) {
                continue;
            }
            let address = SocketAddr::new(alias.into(), self.entrances.tunnels().parts.ports.1);
            match self.listen(alias, address) {
                Ok(Some(stop)) => {
                    self.lost.remove(&alias);
                    self.open.insert(alias, stop);
                }
                Ok(None) => self.entrances.tunnels().parts.counters.tunnels_full.add(),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => match owner(address) {
                    // An inherited socket.
                    Ok(Owner::Covered) => {
                        self.covered = true;
                        self.lost.clear();
                        return BTreeMap::new();
                    }
                    Ok(Owner::Own | Owner::Free) => {}
                    Ok(Owner::By(user)) => {
                        if self.lost.insert(alias, user) != Some(user) {
                            self.entrances.tunnels().complain(|| lost_text(address, user));
                        }
                    }
                    Err(unknown) => {
                        let complain = || {
                            format!(
                                "cannot listen on {address}: {error}; the kernel does not say who does: {unknown}"
                            )
                        };
                        self.entrances.tunnels().complain(complain);
                    }
                },
                Err(error) => {
                    self.entrances.tunnels().complain(|| format!("cannot listen on {address}: {error}"));
                }
            }
        }
        self.lost.clone()
    }

    fn listen(&self, alias: Ipv4Addr, address: SocketAddr) -> io::Result<Option<DropGuard>> {
        let Some(permit) = self.entrances.tunnels().permit() else { return Ok(None) };
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let held = self.entrances.tunnels().parts.holding.token();
        tokio::spawn(serve(Arc::clone(&self.entrances), alias, listener, stop.clone(), permit, held));
        Ok(Some(stop.drop_guard()))
    }
}

/// What to do about a program that has taken the port of an alias.
pub(super) fn lost_text(address: SocketAddr, user: u32) -> String {
    format!(
        "another program (of user {user}) listens on {address}, in place of pmd: stop it (ss -ltnp shows it)"
    )
}

async fn serve(
    entrances: Arc<TunnelEntrances>,
    alias: Ipv4Addr,
    listener: TcpListener,
    stop: CancellationToken,
    _permit: Permit,
    _held: TaskTrackerToken,
) {
    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let permit = Arc::clone(&requests).acquire_owned().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = accepted else {
            entrances.tunnels().parts.epmd_counters.accept_errors.add();
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        entrances.tunnels().parts.epmd_counters.connections_accepted.add();
        let entrances = Arc::clone(&entrances);
        tokio::spawn(async move {
            let Some(_permit) = entrances.tunnels().permit() else { return };
            let _ = tokio::time::timeout(TIMEOUT, answer(&entrances, alias, socket)).await;
            drop(permit);
        });
    }
}

async fn answer(entrances: &Arc<TunnelEntrances>, alias: Ipv4Addr, socket: TcpStream) -> Option<()> {
    let tunnels = entrances.tunnels();
    let mut framed = Framed::new(socket, ServerCodec::default());
    let request = framed.next().await?.ok()?;
    let cluster = Arc::clone(&tunnels.parts.directory);
    let inquirer = Arc::new(TunnelInquirer(Arc::clone(tunnels)));
    let others = Others { cluster, entrances: Arc::clone(entrances) as Arc<dyn Entrances>, inquirer };
    let own = tunnels.parts.directory.own_alias() == alias;
    let names = tunnels.parts.local.names();
    match request.as_request() {
        Request::PortPlease2 { name } => {
            let found = if own {
                let mut found = None;
                names.find(name, &mut |alive2: &Alive2<'_>| found = Registration::copy_of(alive2));
                found
            } else {
                others.find_at_alias(alias.into(), name, Registration::copy_of).await.flatten()
            };
            match &found {
                Some(found) => framed.send(ServerReply::Port2Found(&found.as_alive2())).await.ok()?,
                None => framed.send(ServerReply::Port2NotFound).await.ok()?,
            }
        }
        Request::Names => {
            let (port, _) = tunnels.parts.ports;
            let text = if own {
                // The codec writes the port itself.
                names.render_names().get(size_of::<i32>()..).unwrap_or_default().to_vec()
            } else {
                others.names_at_alias(alias.into())
            };
            framed.send(ServerReply::Listing { port, text: &text }).await.ok()?;
        }
        // Registrations and all other requests are accepted only on 127.0.0.1.
        _ => tunnels.parts.epmd_counters.forbidden.add(),
    }
    // This fails only if the peer is gone.
    let _ = framed.get_mut().shutdown().await;
    Some(())
}
