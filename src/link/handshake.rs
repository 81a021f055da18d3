//! The handshake that follows TLS: each side proves that it knows the cluster secret, and only then introduces itself.
//!
//! The message order is described in [`pmd_protocol::peer::frame`]. The side that dialled proves itself first, together
//! with its first frame, so a stranger that dials learns nothing about the daemon or its cluster, and the handshake
//! still takes a single round trip. An unproven peer can send only a few short frames within a few seconds, which
//! bounds its cost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_REASON;
use pmd_protocol::peer::codec::{PeerCodec, PeerError};
use pmd_protocol::peer::frame::{Close, Hello, PROTOCOL, Preface, Proof, Reason};
use pmd_protocol::peer::{Decoded, Frame, FrameError, NodeId};
use tokio_rustls::TlsStream;
use tokio_util::codec::Framed;

use super::connection::{Connection, Traffic};
use super::link_proof::LinkProof;
use super::local_identity::LocalIdentity;
use crate::auth::cookie::{Cookies, Transition};
use crate::auth::proof::{EXPORTER_LABEL, Role, Session};
use crate::auth::tls::Tls;
use crate::base::foreign::{ForeignText, one_line};
use crate::base::stats::Counters;

/// Time for the whole handshake, TLS included.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Time to write the closing frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames that are read for each one that is needed: a newer version may add some.
const MAX_FRAMES: usize = 8;

/// Frames over TLS.
pub type Frames = Framed<TlsStream<Connection>, PeerCodec>;

/// A peer that has completed the handshake.
#[derive(Debug)]
pub struct ProvenPeer {
    /// The peer's `Hello` frame.
    pub hello: Hello,
    /// The peer's host name.
    pub host: HostName,
    /// The peer's address.
    pub address: SocketAddr,
    /// Bytes and round-trip time of the connection, updated as it is used.
    pub traffic: Arc<Traffic>,
    /// How often this daemon had left the cluster when the handshake began.
    pub departures: u64,
    /// The peer's proof, and what it was made for.
    pub proof: LinkProof,
    /// The connection.
    pub frames: Frames,
}

impl ProvenPeer {
    /// The peer's identity in the membership.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let mut identity = Identity::new(self.hello.id, self.hello.generation, &self.hello.addresses);
        identity.renewal = self.hello.renewal;
        identity
    }
}

/// Why a handshake failed: this daemon rejected the peer, or the peer rejected this daemon.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took longer than [`TIMEOUT`].
    #[error("the handshake did not complete within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// The peer closed the connection.
    #[error("the connection was closed during the handshake")]
    Closed,
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// The peer sent bytes that are not a valid handshake frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent a frame of an unexpected type.
    #[error("unexpected frame of type {0}")]
    Unexpected(u8),
    /// The peer rejected this daemon.
    #[error("{}", in_words(*reason, text))]
    Refused {
        /// The reason code.
        reason: Reason,
        /// The peer's explanation.
        text: ForeignText,
    },
    /// The peer does not know the cluster secret.
    #[error("cookie mismatch")]
    Cookie,
    /// The peer belongs to another cluster.
    #[error("the peer belongs to cluster {0}")]
    Cluster(ForeignText),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks protocol version {0}, this daemon version {PROTOCOL}")]
    Protocol(u16),
    /// The peer's id is not the hash of its key.
    #[error("the peer's id does not match its key")]
    Id,
    /// The peer's certificate does not cover the host name that it uses.
    #[error("the peer's certificate is not for host {0}")]
    Name(ForeignText),
    /// The peer is this daemon itself.
    #[error("the peer is this daemon itself")]
    Oneself,
    /// The peer is another daemon with the same key.
    #[error("the peer has the same key as this daemon")]
    Twin,
    /// The peer is not the daemon that was dialled.
    #[error("a different daemon answered")]
    OtherDaemon,
    /// This daemon has left the cluster.
    #[error("this daemon has left the cluster")]
    Left,
    /// The peer was expelled from the cluster.
    #[error("the peer was expelled from the cluster on host {by}")]
    Expelled {
        /// The peer.
        id: NodeId,
        /// The host on which it was decided, by its own word.
        by: ForeignText,
    },
}

impl HandshakeError {
    /// The label of this error in metrics, logs and `pmd` output.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            HandshakeError::Timeout => "timeout",
            HandshakeError::Io(_) | HandshakeError::Closed => "connection",
            HandshakeError::Tls(_) => "tls",
            HandshakeError::Frame(_) | HandshakeError::Unexpected(_) => "protocol",
            HandshakeError::Refused { .. } => "refused",
            HandshakeError::Cookie => "cookie",
            HandshakeError::Cluster(_) => "cluster",
            HandshakeError::Protocol(_) => "version",
            HandshakeError::Id | HandshakeError::Name(_) => "identity",
            HandshakeError::Oneself | HandshakeError::Twin | HandshakeError::OtherDaemon => "other",
            HandshakeError::Left => "left",
            HandshakeError::Expelled { .. } => "expelled",
        }
    }

    /// Counts the rejected peer.
    pub fn count(&self, counters: &Counters) {
        match self {
            HandshakeError::Timeout => counters.handshakes_timeout.add(),
            HandshakeError::Io(_) | HandshakeError::Closed | HandshakeError::Refused { .. } => {
                counters.handshakes_broken.add();
            }
            HandshakeError::Tls(_) => counters.handshakes_tls.add(),
            HandshakeError::Cookie => counters.handshakes_cookie.add(),
            HandshakeError::Cluster(_)
            | HandshakeError::Protocol(_)
            | HandshakeError::Left
            | HandshakeError::Expelled { .. } => {
                counters.handshakes_foreign.add();
            }
            HandshakeError::Id
            | HandshakeError::Name(_)
            | HandshakeError::Oneself
            | HandshakeError::Twin
            | HandshakeError::OtherDaemon => counters.handshakes_identity.add(),
            HandshakeError::Frame(_) | HandshakeError::Unexpected(_) => counters.handshakes_protocol.add(),
        }
    }

    /// The reason to send to the peer, if any.
    fn close_reason(&self) -> Option<(Reason, String)> {
        match self {
            HandshakeError::Cookie => Some((Reason::Cookie, "cookie mismatch".into())),
            HandshakeError::Cluster(_) => Some((Reason::Refused, "cluster name mismatch".into())),
            HandshakeError::Protocol(_) => {
                Some((Reason::Refused, format!("only protocol version {PROTOCOL} is supported")))
            }
            HandshakeError::Id => Some((Reason::Violation, "the id does not match the key".into())),
            HandshakeError::Name(host) => {
                Some((Reason::Refused, format!("the certificate is not for host {host}")))
            }
            HandshakeError::Oneself => Some((Reason::Duplicate, "both ends are the same daemon".into())),
            HandshakeError::Twin => {
                Some((Reason::Refused, "both daemons have the same key: one of them needs a new one".into()))
            }
            HandshakeError::Left => Some((Reason::Refused, "this daemon has left the cluster".into())),
            HandshakeError::Expelled { id, by } => {
                Some((Reason::Expelled, format!("{id:.8} was expelled from the cluster on host {by}")))
            }
            HandshakeError::Frame(_) | HandshakeError::Unexpected(_) => {
                Some((Reason::Violation, self.to_string()))
            }
            _ => None,
        }
    }
}

impl From<PeerError> for HandshakeError {
    fn from(error: PeerError) -> HandshakeError {
        match error {
            PeerError::Frame(error) => HandshakeError::Frame(error),
            PeerError::TooLong(error) => HandshakeError::Tls(error.to_string()),
            PeerError::Io(error) => HandshakeError::from(error),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        // rustls wraps its own errors this way.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            // The error may quote the peer's certificate.
            Some(error) => HandshakeError::Tls(one_line(&error.to_string())),
            None if error.kind() == io::ErrorKind::UnexpectedEof => HandshakeError::Closed,
            None => HandshakeError::Io(error),
        }
    }
}

/// One handshake in progress.
struct Handshake<'a> {
    local: &'a LocalIdentity,
    tls: &'a Tls,
    role: Role,
    /// The owner of the key in the peer's TLS certificate.
    peer: NodeId,
    session: Session,
}

/// Performs the handshake over a new TLS session; sends the peer the reason if it fails.
///
/// # Errors
///
/// If one side rejects the other.
pub async fn run(
    stream: TlsStream<Connection>,
    local: &LocalIdentity,
    tls: &Tls,
    role: Role,
) -> Result<ProvenPeer, HandshakeError> {
    let address = stream.get_ref().0.address();
    let traffic = stream.get_ref().0.traffic();
    let departures = local.departures();
    let handshake = begin(&stream, local, tls, role)?;
    let mut frames = Framed::new(stream, PeerCodec::default());
    match handshake.exchange(&mut frames).await {
        Ok((hello, host, mac)) => {
            frames.codec_mut().proven();
            let proof = LinkProof::new(handshake.session, role, mac);
            Ok(ProvenPeer { hello, host, address, traffic, departures, proof, frames })
        }
        Err(error) => {
            if let Some((reason, text)) = error.close_reason() {
                close(&mut frames, reason, text).await;
            }
            Err(error)
        }
    }
}

/// Asks the peer for its identity and closes the connection. It ends with the peer's first answer, and the peer gets no
/// `Hello` from this daemon, because probes must be cheap for both.
///
/// # Errors
///
/// If the peer does not prove that it belongs to the cluster, or rejects this daemon.
pub async fn ask_identity(
    stream: TlsStream<Connection>,
    local: &LocalIdentity,
    tls: &Tls,
) -> Result<Hello, HandshakeError> {
    let handshake = begin(&stream, local, tls, Role::Initiator)?;
    let mut frames = Framed::new(stream, PeerCodec::default());
    handshake.prove_first(&mut frames).await?;
    let hello = handshake.receive_hello(&mut frames).await?;
    let (hello, _) = handshake.check_hello(&frames, hello)?;
    close(&mut frames, Reason::NotNeeded, String::new()).await;
    Ok(hello)
}

/// Closes a connection, sending the reason if the peer still reads.
pub async fn close(frames: &mut Frames, reason: Reason, text: String) {
    let closing = Frame::Close(Close { reason, text: truncated(text) });
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, async {
        frames.send(&closing).await?;
        SinkExt::<&Frame>::close(frames).await
    })
    .await;
}

/// The beginning of a text, as far as it fits into a close frame. A longer one would make the frame malformed, and the
/// peer would not see the reason either.
fn truncated(mut text: String) -> String {
    if text.len() > MAX_REASON {
        let end = (0..=MAX_REASON).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

fn begin<'a>(
    stream: &TlsStream<Connection>,
    local: &'a LocalIdentity,
    tls: &'a Tls,
    role: Role,
) -> Result<Handshake<'a>, HandshakeError> {
    let (_, connection) = stream.get_ref();
    let peer = tls.peer(connection.peer_certificates());
    let peer = peer.ok_or_else(|| HandshakeError::Tls("the peer presented no certificate".into()))?;
    let exporter = match stream {
        TlsStream::Client(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
        }
        TlsStream::Server(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
        }
    };
    let exporter = exporter.map_err(|error| HandshakeError::Tls(error.to_string()))?;
    let (initiator, acceptor) = match role {
        Role::Initiator => (tls.id(), peer),
        Role::Acceptor => (peer, tls.id()),
    };
    Ok(Handshake {
        local,
        tls,
        role,
        peer,
        session: Session { exporter, initiator, acceptor, protocol: PROTOCOL },
    })
}

impl Handshake<'_> {
    /// Returns the peer's identity, its host, and the proof that counted.
    async fn exchange(&self, frames: &mut Frames) -> Result<(Hello, HostName, [u8; 32]), HandshakeError> {
        let own = Frame::Hello(self.local.hello());
        match self.role {
            Role::Initiator => {
                let proven = self.prove_first(frames).await?;
                // Sent before the peer's is checked: if the two do not fit, both sides know why.
                frames.send(&own).await?;
                let hello = self.receive_hello(frames).await.inspect_err(|error| {
                    if let HandshakeError::Refused { reason: Reason::Expelled, .. } = error {
                        self.local.set_expelled(Some(error.to_string()));
                    }
                })?;
                let (hello, host) = self.check_hello(frames, hello)?;
                Ok((hello, host, proven))
            }
            Role::Acceptor => {
                let (proof, proven) = self.verify_first(frames).await?;
                frames.feed(&Frame::Proof(proof)).await?;
                // Said after the proof, so that nobody but a member can make it believe that.
                self.check_expelled()?;
                frames.send(&own).await?;
                let hello = self.receive_hello(frames).await?;
                let (hello, host) = self.check_hello(frames, hello)?;
                Ok((hello, host, proven))
            }
        }
    }

    /// Rejects a peer that was expelled, once it has proven that it knew the cluster.
    fn check_expelled(&self) -> Result<(), HandshakeError> {
        match self.local.expulsion_of(&self.peer) {
            Some(decision) => {
                Err(HandshakeError::Expelled { id: self.peer, by: ForeignText::new(&decision.by) })
            }
            None => Ok(()),
        }
    }

    /// Sends this side's proof and checks that of the peer, as the side that dialled. Returns the peer's proof.
    async fn prove_first(&self, frames: &mut Frames) -> Result<[u8; 32], HandshakeError> {
        let (cookies, transition) = (self.local.cookies(), self.local.transition());
        let keys = Transition::keys(transition.as_deref(), &cookies, &self.peer);
        let mut macs = keys.map(|key| self.session.prove(key, self.role));
        let mac = macs.next().ok_or(HandshakeError::Cookie)?;
        frames.feed(&Frame::Preface(Preface { protocol: PROTOCOL })).await?;
        frames.send(&Frame::Proof(Proof { mac, other: macs.next() })).await?;
        let theirs = self.receive_proof(frames).await?;
        let (_, proven) = self.check(&cookies, &theirs).ok_or(HandshakeError::Cookie)?;
        self.check_expelled()?;
        Ok(proven)
    }

    /// Checks the peer's proof and returns this side's, as the side that was dialled, and the peer's. Up to here, the peer
    /// is told nothing but the reason for which it is rejected.
    async fn verify_first(&self, frames: &mut Frames) -> Result<(Proof, [u8; 32]), HandshakeError> {
        match next(frames).await? {
            Frame::Preface(Preface { protocol: PROTOCOL }) => {}
            Frame::Preface(Preface { protocol }) => return Err(HandshakeError::Protocol(protocol)),
            other => return Err(unexpected(other)),
        }
        let theirs = self.receive_proof(frames).await?;
        let (mac, proven) = self.check(&self.local.cookies(), &theirs).ok_or(HandshakeError::Cookie)?;
        if self.local.has_left() {
            return Err(HandshakeError::Left);
        }
        Ok((Proof { mac, other: None }, proven))
    }

    /// Checks the peer's proof against every secret that it may prove. Returns this side's proof, made with the matching
    /// secret, and the peer's.
    fn check(&self, cookies: &Cookies, theirs: &Proof) -> Option<([u8; 32], [u8; 32])> {
        let role = self.role.other();
        let macs = [Some(&theirs.mac), theirs.other.as_ref()];
        let transition = self.local.transition();
        Transition::keys(transition.as_deref(), cookies, &self.peer).find_map(|key| {
            let mac = macs.iter().flatten().find(|mac| self.session.verify(key, role, mac))?;
            Some((self.session.prove(key, self.role), **mac))
        })
    }

    async fn receive_proof(&self, frames: &mut Frames) -> Result<Proof, HandshakeError> {
        match next(frames).await? {
            Frame::Proof(proof) => Ok(proof),
            other => Err(unexpected(other)),
        }
    }

    async fn receive_hello(&self, frames: &mut Frames) -> Result<Hello, HandshakeError> {
        match next(frames).await? {
            Frame::Hello(hello) => Ok(hello),
            other => Err(unexpected(other)),
        }
    }

    /// Checks what the peer says about itself, which it has proven to belong to the cluster.
    fn check_hello(&self, frames: &Frames, hello: Hello) -> Result<(Hello, HostName), HandshakeError> {
        if hello.id != self.peer {
            return Err(HandshakeError::Id);
        }
        if hello.id == self.tls.id() {
            let same = hello.generation == self.local.identity().generation;
            return Err(if same { HandshakeError::Oneself } else { HandshakeError::Twin });
        }
        if hello.cluster != self.local.cluster() {
            return Err(HandshakeError::Cluster(ForeignText::new(&hello.cluster)));
        }
        let wrong_name = || HandshakeError::Name(ForeignText::new(&hello.host));
        let (_, connection) = frames.get_ref().get_ref();
        if !self.tls.allows_name(connection.peer_certificates(), &hello.host) {
            return Err(wrong_name());
        }
        let host = hello.host.parse().map_err(|_| wrong_name())?;
        Ok((hello, host))
    }
}

async fn next(frames: &mut Frames) -> Result<Frame, HandshakeError> {
    for _ in 0..MAX_FRAMES {
        match frames.next().await {
            Some(Ok(Decoded::Frame(frame))) => return Ok(frame),
            Some(Ok(Decoded::Skipped { .. })) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(HandshakeError::Closed),
        }
    }
    Err(HandshakeError::Closed)
}

fn unexpected(frame: Frame) -> HandshakeError {
    match frame {
        Frame::Close(Close { reason, text }) => {
            HandshakeError::Refused { reason, text: ForeignText::new(&text) }
        }
        other => HandshakeError::Unexpected(other.kind()),
    }
}

/// The peer's reason. That of a code which has words of its own is not taken from the peer.
fn in_words(reason: Reason, text: &ForeignText) -> String {
    match reason {
        Reason::Cookie => "cookie mismatch".to_owned(),
        _ if text.is_empty() => format!("the peer closed the connection ({reason:?})"),
        _ => format!("the peer says {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_text_is_truncated_between_characters() {
        assert_eq!(truncated("ä".repeat(200)).len(), MAX_REASON);
        assert_eq!(truncated(format!("x{}", "ä".repeat(200))).len(), MAX_REASON - 1);
    }

    #[test]
    fn what_a_peer_says_is_one_quoted_and_short_line() {
        let text = format!("\r\n\u{1b}[2Jall is well\" {}", "x".repeat(300));
        let refused = |reason| HandshakeError::Refused { reason, text: ForeignText::new(&text) }.to_string();
        let shown = refused(Reason::Refused);
        let start = r#"the peer says "\r\n\u{1b}[2Jall is well' xxx"#;
        assert!(shown.starts_with(start) && shown.ends_with("x…\""), "{shown}");
        assert!(shown.chars().count() < 220 && !shown.contains(char::is_control), "{shown}");
        // A code that has words of its own needs none of the peer's.
        assert_eq!(refused(Reason::Cookie), "cookie mismatch");
        for error in
            [HandshakeError::Cluster(ForeignText::new(&text)), HandshakeError::Name(ForeignText::new(&text))]
        {
            let shown = error.to_string();
            assert!(shown.chars().count() < 250 && !shown.contains(char::is_control), "{shown}");
        }
    }
}
