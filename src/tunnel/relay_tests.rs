//! Tests of what a relay can see, and of what a malicious relay can do.

use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context as Task, Poll};

use pmd_core::membership::Identity;
use pmd_epmd::counters::Counter;
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::Generation;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::auth::cookie::Cookies;
use crate::auth::tls::Tls;
use crate::config::types::IdentitySource;
use crate::link::dial::Dialer;
use crate::link::local_identity::LocalIdentity;

const SECRET: &[u8] = b"only the two ends may read this";

fn daemon(folder: &Path, name: &str) -> Arc<LocalIdentity> {
    let key = folder.join(name);
    let tls = Arc::new(Tls::load(&IdentitySource::Auto { key }, name).expect("a key"));
    let identity = Identity::new(tls.id(), Generation::default(), &[]);
    let host = name.parse().expect("a name");
    let cookies = Arc::new(Cookies::of_text(&"c0".repeat(32)));
    Arc::new(LocalIdentity::new("pmd".into(), host, watch::channel(identity).1, tls, cookies))
}

fn dialer(me: &Arc<LocalIdentity>) -> Dialer {
    let descriptors = Arc::new(Descriptors::new(1_024));
    Dialer::new(Arc::clone(me), descriptors, Arc::default(), Handle::current())
}

/// Two ends of a connection between two daemons after the TLS handshake: the dialling end first.
async fn connected(
    one: &LocalIdentity,
    other: &LocalIdentity,
) -> (TlsStream<Connection>, TlsStream<Connection>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (dialled, accepted) = (dialled.expect("connected"), accepted.expect("accepted"));
    let connector = TlsConnector::from(one.tls().client(ALPN_RELAY));
    let acceptor = TlsAcceptor::from(other.tls().server());
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    let (near, far) = tokio::join!(
        connector.connect(name, Connection::new(dialled, address, Vec::new())),
        acceptor.accept(Connection::new(accepted.0, accepted.1, Vec::new())),
    );
    (TlsStream::from(near.expect("a session")), TlsStream::from(far.expect("a session")))
}

/// A connection that records everything read from it.
struct Watched<'a>(TlsStream<Connection>, &'a Mutex<Vec<u8>>);

impl AsyncRead for Watched<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.0).poll_read(task, buffer);
        this.1.lock().expect("alone").extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(task)
    }
}

#[tokio::test]
async fn a_relay_reads_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let [asker, hub, target] = ["asker", "hub", "target"].map(|name| daemon(folder.path(), name));
    let (near, near_hub) = connected(&asker, &hub).await;
    let (far, far_hub) = connected(&target, &hub).await;
    let seen = Mutex::new(Vec::new());
    let total = Counter::default();
    let (mut near_hub, mut far_hub) = (Watched(near_hub, &seen), Watched(far_hub, &seen));
    let relay = pipe::join(&mut far_hub, &mut near_hub, Default::default(), &total);
    let dialer = dialer(&asker);
    let talk = async {
        let dialled =
            dialer.reach_over(Connection::through(near, Vec::new()), Some(target.tls().id()), ALPN_TUNNEL);
        let (dialled, accepted) = tokio::join!(dialled, accept(&target, far, Vec::new(), asker.tls().id()));
        let ((mut one, _), (mut other, early)) =
            (bare(dialled.expect("proven").frames), bare(accepted.expect("proven").frames));
        assert!(early.is_empty());
        one.write_all(SECRET).await?;
        one.shutdown().await?;
        let mut received = Vec::new();
        other.read_to_end(&mut received).await?;
        assert_eq!(received, SECRET);
        other.shutdown().await?;
        one.read_to_end(&mut received).await
    };
    let (relayed, talked) = tokio::join!(relay, talk);
    relayed.expect("both directions have ended");
    talked.expect("both were received");
    let seen = seen.lock().expect("alone");
    assert!(seen.len() > SECRET.len());
    let holds = |text: &[u8]| seen.windows(text.len()).any(|window| window == text);
    assert!(!holds(SECRET) && !holds(b"asker") && !holds(b"target"), "the relay has read something");
}

#[tokio::test]
async fn a_relay_cannot_impersonate_either_side() {
    let folder = tempfile::tempdir().expect("a folder");
    let [asker, hub, target] = ["asker", "hub", "target"].map(|name| daemon(folder.path(), name));
    let dialer_of = dialer;

    // The relay impersonates the target.
    let (near, near_hub) = connected(&asker, &hub).await;
    let dialer = dialer_of(&asker);
    let dialled =
        dialer.reach_over(Connection::through(near, Vec::new()), Some(target.tls().id()), ALPN_TUNNEL);
    let (dialled, _) = tokio::join!(dialled, async {
        let _ = accept(&hub, near_hub, Vec::new(), asker.tls().id()).await;
    });
    assert!(
        matches!(dialled, Err(DialError::Handshake { source: HandshakeError::OtherDaemon, .. })),
        "{dialled:?}"
    );

    // The relay impersonates the asker.
    let (far, far_hub) = connected(&target, &hub).await;
    let dialer = dialer_of(&hub);
    let dialled =
        dialer.reach_over(Connection::through(far_hub, Vec::new()), Some(target.tls().id()), ALPN_TUNNEL);
    let (_, accepted) = tokio::join!(dialled, accept(&target, far, Vec::new(), asker.tls().id()));
    assert!(matches!(accepted, Err(HandshakeError::OtherDaemon)), "{accepted:?}");
}

#[test]
fn a_dropped_request_is_counted_once_per_link() {
    let id = |byte: u8| NodeId::new([byte; 32]);
    // The target was tried before, and the asker is excluded.
    assert_eq!(others(id(3), (1..6).map(id), &[id(1)]), [id(2), id(4), id(5)]);
    let forwarded =
        Forwarded::of(&[Sent::NoRoom]).plus(Forwarded::of(&[Sent::Yes, Sent::NoRoom, Sent::NoLink]));
    assert_eq!(forwarded, Forwarded { sent: 1, dropped: 2 });
}

#[tokio::test]
async fn a_request_that_could_not_be_sent_fails_early() {
    let rendezvous = crate::tunnel::rendezvous::Rendezvous::default();
    let mut expected = rendezvous.expect(NodeId::new([9; 32])).expect("few are expected");
    let asked = Counter::default();
    let ask = async || {
        asked.add();
        Forwarded { sent: 0, dropped: 3 }
    };
    let result = await_dial(&mut expected, ask).await;
    assert_eq!((result.map(drop), asked.get()), (Err(NoDialBack::Crowded), 2));
    let error = crate::tunnel::connect::OpenError::Crowded(DialError::NoAddress);
    assert_eq!(
        error.to_string(),
        "it has no address; a dial-back request could not be sent because the send queues of the links are full"
    );
}
