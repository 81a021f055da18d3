//! The handshake that follows TLS: each side proves that it knows the cluster secret, and only then introduces itself.
//!
//! The message order is described in [`pmd_protocol::peer::frame`]. The side that dialled proves itself first, together
//! with its first frame, so a stranger that dials learns nothing about the daemon or its cluster, and the handshake
//! still takes a single round trip. An unproven peer can send only a few short frames within a few seconds, which
//! bounds its cost.

mod error;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_REASON;
use pmd_protocol::peer::codec::PeerCodec;
use pmd_protocol::peer::frame::{Close, Hello, PROTOCOL, Preface, Proof, Reason};
use pmd_protocol::peer::{Decoded, Frame};
use tokio_rustls::TlsStream;
use tokio_util::codec::Framed;

use super::connection::{Connection, Traffic};
use super::link_proof::LinkProof;
use super::local_identity::{Barred, Credentials, LocalIdentity};
use crate::auth::cookie::{Cookies, Transition};
use crate::auth::proof::{EXPORTER_LABEL, Role, Session};
use crate::auth::tls::Tls;
use crate::base::foreign::ForeignText;

pub use error::HandshakeError;

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
    /// The peer's key and certificates.
    pub credentials: Credentials,
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

/// One handshake in progress.
struct Handshake<'a> {
    local: &'a LocalIdentity,
    tls: &'a Tls,
    role: Role,
    /// The owner of the key in the peer's TLS certificate, and its certificates.
    peer: Credentials,
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
            let credentials = handshake.peer;
            Ok(ProvenPeer { hello, host, address, traffic, departures, proof, credentials, frames })
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
    let chain = connection.peer_certificates();
    let id = tls.peer(chain);
    let id = id.ok_or_else(|| HandshakeError::Tls("the peer presented no certificate".into()))?;
    let certificates = tls.certificates_of(chain).map_err(|error| HandshakeError::Tls(error.to_string()))?;
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
        Role::Initiator => (tls.id(), id),
        Role::Acceptor => (id, tls.id()),
    };
    let peer = Credentials { id, certificates };
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
                    if let HandshakeError::Refused {
                        reason: reason @ (Reason::Expelled | Reason::Revoked),
                        ..
                    } = error
                    {
                        let is_revoked = *reason == Reason::Revoked;
                        self.local.set_barred(Some(Barred { is_revoked, text: error.to_string() }));
                    }
                })?;
                let (hello, host) = self.check_hello(frames, hello)?;
                Ok((hello, host, proven))
            }
            Role::Acceptor => {
                let (proof, proven) = self.verify_first(frames).await?;
                frames.feed(&Frame::Proof(proof)).await?;
                // Said after the proof, so that nobody but a member can make it believe that.
                self.check_barred()?;
                frames.send(&own).await?;
                let hello = self.receive_hello(frames).await?;
                let (hello, host) = self.check_hello(frames, hello)?;
                Ok((hello, host, proven))
            }
        }
    }

    /// Rejects a peer that was expelled, or whose certificate was revoked, once it has proven that it knew the cluster.
    fn check_barred(&self) -> Result<(), HandshakeError> {
        let Credentials { id, certificates } = &self.peer;
        if let Some(decision) = self.local.expulsion_of(id) {
            return Err(HandshakeError::Expelled { id: *id, by: ForeignText::new(&decision.by) });
        }
        match (self.peer.revoked(&self.local.revocations()), certificates) {
            (Some(serial), Some(certificates)) => Err(HandshakeError::Revoked {
                host: ForeignText::new(certificates.host()),
                serial: serial.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Sends this side's proof and checks that of the peer, as the side that dialled. Returns the peer's proof.
    async fn prove_first(&self, frames: &mut Frames) -> Result<[u8; 32], HandshakeError> {
        let (cookies, transition) = (self.local.cookies(), self.local.transition());
        let keys = Transition::keys(transition.as_deref(), &cookies, &self.peer.id);
        let mut macs = keys.map(|key| self.session.prove(key, self.role));
        let mac = macs.next().ok_or(HandshakeError::Cookie)?;
        frames.feed(&Frame::Preface(Preface { protocol: PROTOCOL })).await?;
        frames.send(&Frame::Proof(Proof { mac, other: macs.next() })).await?;
        let theirs = self.receive_proof(frames).await?;
        let (_, proven) = self.check(&cookies, &theirs).ok_or(HandshakeError::Cookie)?;
        self.check_barred()?;
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
        Transition::keys(transition.as_deref(), cookies, &self.peer.id).find_map(|key| {
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
        if hello.id != self.peer.id {
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
