//! From a TLS session to a proven peer: both say who they are, then both prove that they know the cookie.
//!
//! See [`pmd_protocol::peer::frame`] for the order of the messages. Until it is over, a peer may send a few short
//! frames within a few seconds, and costs no more than that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::peer::codec::{PeerCodec, PeerError};
use pmd_protocol::peer::frame::{Bye, Hello, PROTOCOL, Proof, Reason};
use pmd_protocol::peer::{Decoded, Frame, FrameError, NodeId};
use tokio_rustls::TlsStream;
use tokio_util::codec::Framed;

use super::connection::{Traffic, Wire};
use super::local_identity::Me;
use crate::auth::cookie::Cookies;
use crate::auth::proof::{EXPORTER_LABEL, Role, Session};
use crate::auth::tls::Tls;

/// How long all of it may take, the TLS handshake included.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames of a stranger: three are needed, and a newer version may have something to add.
const MAX_FRAMES: usize = 8;

/// Frames over TLS.
pub type Frames = Framed<TlsStream<Wire>, PeerCodec>;

/// A proven peer.
#[derive(Debug)]
pub struct Greeted {
    /// What it said about itself.
    pub hello: Hello,
    /// The name of its host.
    pub host: HostName,
    /// Where it is.
    pub address: SocketAddr,
    /// What has gone over the connection; grows as it does.
    pub traffic: Arc<Traffic>,
    /// The connection.
    pub frames: Frames,
}

impl Greeted {
    /// The peer as the membership names it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let mut identity = Identity::new(self.hello.id, self.hello.generation, &self.hello.addresses);
        identity.renewal = self.hello.renewal;
        identity
    }
}

/// Why a peer was not let in, or did not let this daemon in.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// It took too long.
    #[error("no complete handshake within {} s", PATIENCE.as_secs())]
    Late,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// It was closed.
    #[error("the connection was closed in the middle of the handshake")]
    Closed,
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// Bytes that are no frame of a handshake.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame at the wrong moment.
    #[error("a frame of type {0} in the wrong place")]
    Unexpected(u8),
    /// The other side has said no.
    #[error("{text}")]
    Refused {
        /// Whether to try again.
        reason: Reason,
        /// What it said.
        text: String,
    },
    /// It does not know the cookie.
    #[error("its cookie is another one")]
    Cookie,
    /// It belongs to another cluster.
    #[error("it belongs to the cluster {0:?}")]
    Cluster(String),
    /// It speaks another version of the protocol.
    #[error("it speaks version {0} of the protocol, this daemon version {PROTOCOL}")]
    Protocol(u16),
    /// Its id is not that of its key.
    #[error("its id is not that of its key")]
    Id,
    /// It calls itself what its certificate does not allow.
    #[error("its certificate is not for the host {0:?}")]
    Name(String),
    /// It is this very daemon.
    #[error("it is this daemon itself")]
    Oneself,
    /// Another daemon has this one's key.
    #[error("it has the same key as this daemon")]
    Twin,
    /// It is not whom this daemon wanted.
    #[error("another daemon answers there")]
    Stranger,
    /// This daemon has left the cluster.
    #[error("this daemon has left the cluster")]
    Left,
}

impl GreetingError {
    /// What it counts as.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            GreetingError::Late => "timeout",
            GreetingError::Io(_) | GreetingError::Closed => "connection",
            GreetingError::Tls(_) => "tls",
            GreetingError::Frame(_) | GreetingError::Unexpected(_) => "protocol",
            GreetingError::Refused { .. } => "refused",
            GreetingError::Cookie => "cookie",
            GreetingError::Cluster(_) => "cluster",
            GreetingError::Protocol(_) => "version",
            GreetingError::Id | GreetingError::Name(_) => "identity",
            GreetingError::Oneself | GreetingError::Twin | GreetingError::Stranger => "other",
            GreetingError::Left => "left",
        }
    }

    /// What the other side is told, if it should know.
    fn farewell(&self) -> Option<(Reason, String)> {
        match self {
            GreetingError::Cookie => Some((Reason::Refused, "the cookie is another one".into())),
            GreetingError::Cluster(_) => Some((Reason::Refused, "this is another cluster".into())),
            GreetingError::Protocol(_) => {
                Some((Reason::Refused, format!("only version {PROTOCOL} of the protocol is spoken here")))
            }
            GreetingError::Id => Some((Reason::Violation, "the id is not that of the key".into())),
            GreetingError::Name(host) => {
                Some((Reason::Refused, format!("the certificate is not for the host {host:?}")))
            }
            GreetingError::Oneself => Some((Reason::Duplicate, "this is the same daemon".into())),
            GreetingError::Twin => {
                Some((Reason::Refused, "both daemons have the same key: one of them needs another".into()))
            }
            GreetingError::Left => Some((Reason::Refused, "this daemon has left the cluster".into())),
            GreetingError::Frame(_) | GreetingError::Unexpected(_) => {
                Some((Reason::Violation, self.to_string()))
            }
            _ => None,
        }
    }
}

impl From<PeerError> for GreetingError {
    fn from(error: PeerError) -> GreetingError {
        match error {
            PeerError::Frame(error) => GreetingError::Frame(error),
            PeerError::TooLong(error) => GreetingError::Tls(error.to_string()),
            PeerError::Io(error) => GreetingError::from(error),
        }
    }
}

impl From<io::Error> for GreetingError {
    fn from(error: io::Error) -> GreetingError {
        // rustls hands its own errors over in this wrapping.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => GreetingError::Tls(error.to_string()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => GreetingError::Closed,
            None => GreetingError::Io(error),
        }
    }
}

/// What both sides of a greeting need to know.
struct Parties<'a> {
    me: &'a Me,
    tls: &'a Tls,
    role: Role,
    /// Whose key the TLS session has shown.
    peer: NodeId,
    session: Session,
}

/// Greets a peer over a TLS session whose handshake is complete; says farewell if that fails.
///
/// # Errors
///
/// If one side does not let the other in.
pub async fn greet(
    stream: TlsStream<Wire>,
    me: &Me,
    tls: &Tls,
    role: Role,
) -> Result<Greeted, GreetingError> {
    let address = stream.get_ref().0.address();
    let traffic = stream.get_ref().0.traffic();
    let session = parties(&stream, me, tls, role)?;
    let mut frames = Framed::new(stream, PeerCodec::default());
    match session.talk(&mut frames).await {
        Ok((hello, host)) => {
            frames.codec_mut().proven();
            Ok(Greeted { hello, host, address, traffic, frames })
        }
        Err(error) => {
            if let Some((reason, text)) = error.farewell() {
                say_farewell(&mut frames, reason, text).await;
            }
            Err(error)
        }
    }
}

/// Asks who is there, and no more.
///
/// # Errors
///
/// If it does not say so.
pub async fn ask_identity(stream: TlsStream<Wire>, me: &Me, tls: &Tls) -> Result<Hello, GreetingError> {
    let session = parties(&stream, me, tls, Role::Initiator)?;
    let mut frames = Framed::new(stream, PeerCodec::default());
    frames.send(&Frame::Hello(me.hello())).await?;
    let (hello, _) = session.take_hello(&mut frames).await?;
    say_farewell(&mut frames, Reason::NotNeeded, String::new()).await;
    Ok(hello)
}

/// Ends a connection with a reason, as far as the other side still listens.
pub async fn say_farewell(frames: &mut Frames, reason: Reason, text: String) {
    let bye = Frame::Bye(Bye { reason, text });
    let _ = tokio::time::timeout(FAREWELL, async {
        frames.send(&bye).await?;
        SinkExt::<&Frame>::close(frames).await
    })
    .await;
}

fn parties<'a>(
    stream: &TlsStream<Wire>,
    me: &'a Me,
    tls: &'a Tls,
    role: Role,
) -> Result<Parties<'a>, GreetingError> {
    let (_, connection) = stream.get_ref();
    let peer = tls.peer(connection.peer_certificates());
    let peer = peer.ok_or_else(|| GreetingError::Tls("the peer has shown no certificate".into()))?;
    let exporter = match stream {
        TlsStream::Client(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
        }
        TlsStream::Server(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
        }
    };
    let exporter = exporter.map_err(|error| GreetingError::Tls(error.to_string()))?;
    let (initiator, acceptor) = match role {
        Role::Initiator => (tls.id(), peer),
        Role::Acceptor => (peer, tls.id()),
    };
    Ok(Parties {
        me,
        tls,
        role,
        peer,
        session: Session { exporter, initiator, acceptor, protocol: PROTOCOL },
    })
}

impl Parties<'_> {
    async fn talk(&self, frames: &mut Frames) -> Result<(Hello, HostName), GreetingError> {
        let cookies = self.me.cookies();
        match self.role {
            Role::Initiator => {
                frames.send(&Frame::Hello(self.me.hello())).await?;
                let greeted = self.take_hello(frames).await?;
                let mut macs = cookies.keys().map(|key| self.session.prove(key, self.role));
                let mac = macs.next().ok_or(GreetingError::Cookie)?;
                frames.send(&Frame::Proof(Proof { mac, other: macs.next() })).await?;
                let theirs = self.take_proof(frames).await?;
                self.check(&cookies, &theirs).ok_or(GreetingError::Cookie)?;
                Ok(greeted)
            }
            Role::Acceptor => {
                let greeted = self.take_hello(frames).await?;
                if self.me.has_left() {
                    return Err(GreetingError::Left);
                }
                frames.send(&Frame::Hello(self.me.hello())).await?;
                let theirs = self.take_proof(frames).await?;
                let mac = self.check(&cookies, &theirs).ok_or(GreetingError::Cookie)?;
                frames.send(&Frame::Proof(Proof { mac, other: None })).await?;
                Ok(greeted)
            }
        }
    }

    /// This side's own proof by the cookie that theirs is of, if it is of any that this daemon knows.
    fn check(&self, cookies: &Cookies, theirs: &Proof) -> Option<[u8; 32]> {
        let role = self.role.other();
        let macs = [Some(&theirs.mac), theirs.other.as_ref()];
        let key = cookies
            .keys()
            .find(|key| macs.iter().flatten().any(|mac| self.session.verify(key, role, mac)))?;
        Some(self.session.prove(key, self.role))
    }

    async fn take_hello(&self, frames: &mut Frames) -> Result<(Hello, HostName), GreetingError> {
        let hello = match next(frames).await? {
            Frame::Hello(hello) => hello,
            other => return Err(unexpected(other)),
        };
        if hello.protocol != PROTOCOL {
            return Err(GreetingError::Protocol(hello.protocol));
        }
        if hello.id != self.peer {
            return Err(GreetingError::Id);
        }
        if hello.id == self.tls.id() {
            let same = hello.generation == self.me.identity().generation;
            return Err(if same { GreetingError::Oneself } else { GreetingError::Twin });
        }
        if hello.cluster != self.me.cluster() {
            return Err(GreetingError::Cluster(hello.cluster));
        }
        let (_, connection) = frames.get_ref().get_ref();
        if !self.tls.allows_name(connection.peer_certificates(), &hello.host) {
            return Err(GreetingError::Name(hello.host));
        }
        let Ok(host) = hello.host.parse() else { return Err(GreetingError::Name(hello.host)) };
        Ok((hello, host))
    }

    async fn take_proof(&self, frames: &mut Frames) -> Result<Proof, GreetingError> {
        match next(frames).await? {
            Frame::Proof(proof) => Ok(proof),
            other => Err(unexpected(other)),
        }
    }
}

async fn next(frames: &mut Frames) -> Result<Frame, GreetingError> {
    for _ in 0..MAX_FRAMES {
        match frames.next().await {
            Some(Ok(Decoded::Frame(frame))) => return Ok(frame),
            Some(Ok(Decoded::Skipped { .. })) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(GreetingError::Closed),
        }
    }
    Err(GreetingError::Closed)
}

fn unexpected(frame: Frame) -> GreetingError {
    match frame {
        Frame::Bye(Bye { reason, text }) => GreetingError::Refused { reason, text },
        other => GreetingError::Unexpected(other.kind()),
    }
}
