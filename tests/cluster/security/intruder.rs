//! A fake daemon that speaks TLS and frames with any key, name and proof.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use pmd::auth::cookie::Cookies;
use pmd::auth::proof::{EXPORTER_LABEL, Role, Session};
use pmd::auth::tls::ALPN_LINK;
use pmd_protocol::peer::codec::{decode, encode};
use pmd_protocol::peer::frame::{Hello, PROTOCOL, Preface, Proof};
use pmd_protocol::peer::{Decoded, Frame, Generation, NodeId, Phase};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};
use sha2::{Digest, Sha256};

use crate::machine::PORT;
use crate::world::{PATIENCE, World};

/// A key and a certificate.
#[derive(Debug)]
pub(super) struct Card {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The id derived from the key.
    pub(super) id: NodeId,
}

impl Card {
    /// A new self-signed certificate.
    pub(super) fn fresh() -> Card {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(Vec::new()).expect("a certificate without a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        Card::new(vec![certificate], der)
    }

    /// The key and certificate written by `pmd ca issue`.
    pub(super) fn issued(folder: &Path, host: &str) -> Card {
        let chain = CertificateDer::pem_file_iter(folder.join(format!("{host}.pem"))).expect("a certificate");
        let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{host}.key"))).expect("a key");
        Card::new(chain, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Card {
        let id = id_of(&chain[0]);
        Card { chain, key, id }
    }

    /// The Hello of a daemon with this certificate.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            id: self.id,
            generation: Generation { boot_ms: 1, nonce: 7 },
            renewal: 0,
            host: "intruder".into(),
            cluster: "pmd".into(),
            addresses: Vec::new(),
            software: "none".into(),
        }
    }
}

fn id_of(certificate: &CertificateDer<'_>) -> NodeId {
    let parsed = ParsedCertificate::try_from(certificate).expect("a certificate");
    NodeId::new(Sha256::digest(parsed.subject_public_key_info().as_ref()).into())
}

/// A connection to a daemon, or from one.
#[derive(Debug)]
pub(super) struct Talk {
    tls: Tls,
    role: Role,
    me: NodeId,
    /// The id from the peer's certificate.
    pub(super) peer: NodeId,
    read: Vec<u8>,
    pub(super) phase: Phase,
}

#[derive(Debug)]
enum Tls {
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// The end of a conversation.
#[derive(Debug)]
pub(super) struct Ending {
    /// The daemon's frames up to then, as far as they could be decoded.
    pub(super) frames: Vec<Frame>,
    /// How the connection ended.
    pub(super) error: Option<io::Error>,
}

impl Ending {
    /// Fails the test if the daemon has sent anything but the reason why it closed the connection, or if that reason
    /// says anything about the daemon or its cluster.
    pub(super) fn told_nothing(self) -> Ending {
        for frame in &self.frames {
            let Frame::Close(close) = frame else {
                panic!("an intruder was told more than a reason: {self:?}")
            };
            for secret in ["pmd", "h1", "h2", "10.77.", "fd77", env!("CARGO_PKG_VERSION")] {
                assert!(!close.text.contains(secret), "{secret}: {self:?}");
            }
        }
        assert!(self.frames.len() <= 1, "{self:?}");
        self
    }

    /// Fails the test unless the daemon has rejected this side after both proofs, for this reason.
    pub(super) fn closed_because(self, reason: &str) {
        let closed = self.frames.iter().all(|frame| matches!(frame, Frame::Close(_)));
        assert!(closed && self.close_reason().starts_with(reason), "{reason}: {self:?}");
    }

    /// The reason that the daemon gave.
    pub(super) fn close_reason(&self) -> String {
        let bye = self.frames.iter().find_map(|frame| match frame {
            Frame::Close(bye) => Some(format!("{:?}: {}", bye.reason, bye.text)),
            _ => None,
        });
        bye.unwrap_or_default()
    }
}

/// A TCP connection from one host to another, to the daemon's port.
pub(super) fn connect(world: &World, from: usize, to: Ipv4Addr) -> TcpStream {
    let stream = world.site(from).cell.run(move || TcpStream::connect((to, PORT))).expect("a daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

impl Talk {
    /// Dials the daemon of `to` from `from`, with the certificate of `card` or none. The daemon's verdict on the
    /// certificate comes later: TLS 1.3 lets a client send data before.
    pub(super) fn dial(world: &World, from: usize, to: usize, card: Option<&Card>) -> io::Result<Talk> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let mut config = match card {
            Some(card) => builder
                .with_client_auth_cert(card.chain.clone(), card.key.clone_key())
                .expect("a key that fits its certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN_LINK.to_vec()];
        config.enable_sni = false;
        let name = ServerName::try_from("pmd.invalid").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = connect(world, from, world[to].ip);
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let peer = id_of(&connection.peer_certificates().expect("a daemon shows a certificate")[0]);
        let me = card.map_or(NodeId::MIN, |card| card.id);
        let tls = Tls::Client(Box::new(StreamOwned::new(connection, stream)));
        Ok(Talk { tls, role: Role::Initiator, me, peer, read: Vec::new(), phase: Phase::Handshake })
    }

    /// Accepts a connection from a daemon, with the certificate of `card`.
    pub(super) fn answer(mut stream: TcpStream, card: &Card) -> io::Result<Talk> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(Arc::new(Credulous))
            .with_single_cert(card.chain.clone(), card.key.clone_key())
            .expect("a key that fits its certificate");
        config.alpn_protocols = vec![ALPN_LINK.to_vec()];
        let mut connection = ServerConnection::new(Arc::new(config)).expect("a server");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let peer = id_of(&connection.peer_certificates().expect("a daemon shows a certificate")[0]);
        let tls = Tls::Server(Box::new(StreamOwned::new(connection, stream)));
        Ok(Talk { tls, role: Role::Acceptor, me: card.id, peer, read: Vec::new(), phase: Phase::Handshake })
    }

    /// Sends a frame.
    pub(super) fn say(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes).expect("a frame that fits");
        self.say_bytes(&bytes)
    }

    /// Sends raw bytes.
    pub(super) fn say_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Tls::Client(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            Tls::Server(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// The next frame; an error at the end.
    pub(super) fn hear(&mut self) -> io::Result<Frame> {
        loop {
            let decoded = decode(&self.read, self.phase).expect("a daemon sends frames");
            if let Some((decoded, used)) = decoded {
                self.read.drain(..used);
                match decoded {
                    Decoded::Frame(frame) => return Ok(frame),
                    Decoded::Skipped { .. } => continue,
                }
            }
            let mut piece = [0; 4096];
            let count = match &mut self.tls {
                Tls::Client(tls) => tls.read(&mut piece)?,
                Tls::Server(tls) => tls.read(&mut piece)?,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&piece[..count]);
        }
    }

    /// The next frame, which must be a Hello.
    pub(super) fn hear_hello(&mut self) -> Hello {
        match self.hear() {
            Ok(Frame::Hello(hello)) => hello,
            other => panic!("a Hello was expected: {other:?}"),
        }
    }

    /// The next frame, which must be a Proof.
    pub(super) fn hear_proof(&mut self) -> Proof {
        match self.hear() {
            Ok(Frame::Proof(proof)) => proof,
            other => panic!("a Proof was expected: {other:?}"),
        }
    }

    /// Reads until the daemon closes the connection.
    pub(super) fn hear_out(mut self) -> Ending {
        let mut frames = Vec::new();
        loop {
            match self.hear() {
                Ok(frame) => frames.push(frame),
                // Reached after a timeout if the daemon is silent but keeps the connection open.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the line stays open: {frames:?}")
                }
                Err(error) => return Ending { frames, error: Some(error) },
            }
        }
    }

    /// This side's proof with `cookie`, as an honest daemon would compute it.
    pub(super) fn proof(&self, cookie: &str) -> Proof {
        let exporter = match &self.tls {
            Tls::Client(tls) => tls.conn.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
            Tls::Server(tls) => tls.conn.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
        };
        let (initiator, acceptor) = match self.role {
            Role::Initiator => (self.me, self.peer),
            Role::Acceptor => (self.peer, self.me),
        };
        let exporter = exporter.expect("a complete handshake");
        let session = Session { exporter, initiator, acceptor, protocol: PROTOCOL };
        let cookies = Cookies::of_text(cookie);
        Proof { mac: session.prove(cookies.current().expect("a cookie"), self.role), other: None }
    }

    /// Sends the first frames of an honest daemon that dials and knows `cookie`.
    pub(super) fn prove(&mut self, cookie: &str) -> io::Result<()> {
        let proof = self.proof(cookie);
        self.prove_with(proof)
    }

    /// Sends the first frames of a daemon that dials, with this proof.
    pub(super) fn prove_with(&mut self, proof: Proof) -> io::Result<()> {
        let mut bytes = Vec::new();
        for frame in [Frame::Preface(Preface { protocol: PROTOCOL }), Frame::Proof(proof)] {
            encode(&frame, &mut bytes).expect("a frame that fits");
        }
        self.say_bytes(&bytes)
    }

    /// The first frames of a daemon that dials, which must be a Preface and a Proof.
    pub(super) fn hear_first_proof(&mut self) -> Proof {
        match self.hear() {
            Ok(Frame::Preface(Preface { protocol: PROTOCOL })) => self.hear_proof(),
            other => panic!("a Preface was expected: {other:?}"),
        }
    }

    /// Performs the handshake as an honest daemon that dials and knows `cookie`. Returns the other's proof and Hello.
    pub(super) fn handshake(&mut self, hello: Hello, cookie: &str) -> io::Result<(Proof, Hello)> {
        self.prove(cookie)?;
        let theirs = (self.hear_proof(), self.hear_hello());
        self.say(&Frame::Hello(hello))?;
        self.phase = Phase::Proven;
        Ok(theirs)
    }
}

/// Accepts every certificate, as a man in the middle must.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Credulous {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
