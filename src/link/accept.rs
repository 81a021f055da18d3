//! Connections that other daemons have made: from the EPMD port, where the first byte told them apart, to the core.
//!
//! A stranger costs a bounded amount for a bounded time, and one address cannot take the place of all others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::connection::Wire;
use super::handshake;
use super::handshake::{Greeted, GreetingError};
use super::local_identity::Me;
use super::permit::Place;
use super::{oneshot, session};
use crate::auth::proof::Role;
use crate::auth::tls::{ALPN_PACKET, ALPN_RELAY, ALPN_TUNNEL};
use crate::base::log::repeats::Complaints;
use crate::cluster::driver::Core;
use crate::daemon::Context;
use crate::tunnel::{Tunnels, exit, relay};

/// Connections that wait to be looked at.
const QUEUE: usize = 256;
/// Handshakes at once: at about 25 KiB each a bounded price for strangers.
const HANDSHAKES: usize = 128;
/// Of these, from one address: hosts behind one address may start together, and one host alone shall not keep all others
/// out.
const HANDSHAKES_OF_ONE: usize = 48;

/// A connection whose first byte was that of TLS.
#[derive(Debug)]
pub struct Stranger {
    /// The connection.
    pub socket: OwnedFd,
    /// Its other end.
    pub address: SocketAddr,
    /// What was read already.
    pub head: Vec<u8>,
    /// The descriptor that it uses.
    pub place: Place,
}

/// Where the threads of the EPMD port leave such connections.
#[derive(Debug, Clone)]
pub struct Doorman(mpsc::Sender<Stranger>);

impl Doorman {
    /// A doorman, and the queue behind it.
    pub fn new() -> (Doorman, mpsc::Receiver<Stranger>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Doorman(sender), receiver)
    }

    /// Takes a connection over; gives it back if there are too many.
    ///
    /// # Errors
    ///
    /// With the connection, to be closed.
    pub fn offer(&self, stranger: Stranger) -> Result<(), Stranger> {
        self.0.try_send(stranger).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// Handshakes under way, by address.
#[derive(Debug, Default)]
struct Handshakes(Mutex<(usize, HashMap<IpAddr, usize>)>);

impl Handshakes {
    /// The right to one more with this address, if there is room.
    fn begin(self: &Arc<Handshakes>, address: IpAddr) -> Option<Handshake> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *all;
        let own = by_address.get(&address).copied().unwrap_or_default();
        if *total >= HANDSHAKES || own >= HANDSHAKES_OF_ONE {
            return None;
        }
        *total += 1;
        by_address.insert(address, own + 1);
        Some(Handshake { all: Arc::clone(self), address })
    }
}

#[derive(Debug)]
struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *all;
        *total -= 1;
        if let Some(own) = by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Serves the connections that come through the doorman, until there is none any more.
pub async fn serve(
    mut strangers: mpsc::Receiver<Stranger>,
    context: Arc<Context>,
    me: Arc<Me>,
    core: Core,
    tunnels: Arc<Tunnels>,
) {
    let handshakes = Arc::new(Handshakes::default());
    let log = Complaints::new(Handle::current());
    while let Some(Stranger { socket, address, head, place }) = strangers.recv().await {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Some(handshake) = handshakes.begin(address.ip()) else {
            context.counters.handshakes_full.add();
            complain(&log, address, "full", "there are too many handshakes under way".into());
            context.refusals.note(address.ip(), false, "full", "there are too many handshakes under way");
            continue;
        };
        // The shard has made it not blocking.
        let socket = match TcpStream::from_std(StdStream::from(socket)) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%address, "cannot use a connection: {error}");
                continue;
            }
        };
        let (context, me, core, log) =
            (Arc::clone(&context), Arc::clone(&me), core.clone(), Arc::clone(&log));
        let tunnels = Arc::clone(&tunnels);
        tokio::spawn(async move {
            let _place = place;
            let wire = Wire::new(socket, address, head);
            let greeted = tokio::time::timeout(handshake::PATIENCE, Box::pin(admit(wire, &me))).await;
            drop(handshake);
            match greeted.unwrap_or(Err(GreetingError::Late)) {
                Ok((greeted, alpn)) => match alpn.as_slice() {
                    ALPN_PACKET => oneshot::serve(greeted, core, None).await,
                    ALPN_TUNNEL => exit::serve(greeted, tunnels, "direct").await,
                    ALPN_RELAY => relay::serve(greeted, tunnels).await,
                    _ => {
                        context.counters.handshakes.add();
                        session::serve(greeted, false, core, context).await;
                    }
                },
                Err(error) => refuse(&context, &log, address, &error),
            }
        });
    }
}

/// Carries out both handshakes; the peer, and which protocol it speaks.
async fn admit(wire: Wire, me: &Me) -> Result<(Greeted, Vec<u8>), GreetingError> {
    let tls = me.tls();
    let stream = TlsAcceptor::from(tls.server()).accept(wire).await?;
    let alpn = match stream.get_ref().1.alpn_protocol() {
        Some(alpn) => alpn.to_vec(),
        None => return Err(GreetingError::Tls("it has not said which protocol it speaks".into())),
    };
    let greeted = handshake::greet(TlsStream::from(stream), me, &tls, Role::Acceptor).await?;
    Ok((greeted, alpn))
}

fn refuse(context: &Context, log: &Arc<Complaints>, address: SocketAddr, error: &GreetingError) {
    // Who only wanted to know who is there has said so; and every host may have the same list of seeds, itself included.
    if matches!(error, GreetingError::Refused { .. } | GreetingError::Oneself) {
        return;
    }
    context.counters.refused_handshake(error);
    complain(log, address, error.label(), error.to_string());
    context.refusals.note_error(address.ip(), false, error);
}

/// Writes a log line about who was not let in, unless there were too many. Its port is another each time.
fn complain(log: &Arc<Complaints>, address: SocketAddr, reason: &'static str, text: String) {
    log.say(format!("{} {text}", address.ip()), move |more| {
        tracing::warn!(peer = %address, reason, "a daemon was not let in: {text}{more}");
    });
}
