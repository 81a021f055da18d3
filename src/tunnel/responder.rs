//! Answers to look-ups at aliases, for a daemon that does not listen on all addresses: each alias then needs a listening
//! socket of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pmd_protocol::epmd::{Request, encode, parse};
use pmd_protocol::limits::MAX_FIRST_READ;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Tunnels;
use crate::link::permit::Place;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at one alias at once.
const REQUESTS: usize = 32;

/// The listening sockets, by alias; none where the daemon's own sockets do.
#[derive(Debug)]
pub struct Responders {
    tunnels: Arc<Tunnels>,
    /// Whether the daemon listens on all IPv4 addresses.
    covered: bool,
    open: BTreeMap<Ipv4Addr, DropGuard>,
}

impl Responders {
    /// None yet.
    pub fn new(tunnels: Arc<Tunnels>) -> Responders {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let covered = tunnels.context.listening.iter().any(|address| address.ip() == all);
        Responders { tunnels, covered, open: BTreeMap::new() }
    }

    /// Listens on these aliases and no others.
    pub fn look(&mut self, aliases: BTreeSet<Ipv4Addr>) {
        if self.covered {
            return;
        }
        self.open.retain(|alias, _| aliases.contains(alias));
        for alias in aliases {
            if self.open.contains_key(&alias) {
                continue;
            }
            let address = SocketAddr::new(alias.into(), self.tunnels.context.settings.listen_port());
            match self.listen(alias, address) {
                Ok(Some(stop)) => drop(self.open.insert(alias, stop)),
                Ok(None) => self.tunnels.context.counters.tunnels_full.add(),
                // A socket that a supervisor has handed over, and that has this address among others.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    self.covered = true;
                    return;
                }
                Err(error) => self.tunnels.complain(|| format!("cannot listen on {address}: {error}")),
            }
        }
    }

    fn listen(&self, alias: Ipv4Addr, address: SocketAddr) -> io::Result<Option<DropGuard>> {
        let Some(place) = Place::take(&self.tunnels.context) else { return Ok(None) };
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let door = self.tunnels.context.doors.token();
        tokio::spawn(serve(Arc::clone(&self.tunnels), alias, listener, stop.clone(), place, door));
        Ok(Some(stop.drop_guard()))
    }
}

async fn serve(
    tunnels: Arc<Tunnels>,
    alias: Ipv4Addr,
    listener: TcpListener,
    stop: CancellationToken,
    _place: Place,
    _door: TaskTrackerToken,
) {
    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let permit = Arc::clone(&requests).acquire_owned().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = accepted else {
            tunnels.context.counters.accept_errors.add();
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tunnels.context.counters.connections_accepted.add();
        let tunnels = Arc::clone(&tunnels);
        tokio::spawn(async move {
            let Some(_place) = Place::take(&tunnels.context) else { return };
            let _ = tokio::time::timeout(PATIENCE, answer(&tunnels, alias, socket)).await;
            drop(permit);
        });
    }
}

async fn answer(tunnels: &Arc<Tunnels>, alias: Ipv4Addr, mut socket: TcpStream) -> io::Result<()> {
    let mut input = Vec::new();
    let mut buffer = [0; 512];
    let body = loop {
        match parse::frame(&input) {
            Ok(Some(body)) => break body.to_vec(),
            Ok(None) if input.len() < MAX_FIRST_READ => {}
            _ => return Ok(()),
        }
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            read => input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    };
    match parse::parse_request(&body) {
        Ok(Request::PortPlease2 { name }) => {
            let mut out = Vec::new();
            if !tunnels.answer_at(alias, name, &mut out) {
                out.extend_from_slice(&encode::PORT2_NOT_FOUND);
            }
            socket.write_all(&out).await?;
        }
        Ok(Request::Names) => socket.write_all(&tunnels.names_at(alias)).await?,
        // Nodes register at 127.0.0.1, and the rest is asked for there as well.
        _ => tunnels.context.counters.forbidden.add(),
    }
    socket.shutdown().await
}
