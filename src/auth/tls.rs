//! TLS between daemons: version 1.3 only, and both sides always present a certificate.
//!
//! A daemon's id is the hash of its public key, so renewing a certificate with the same key keeps the id. Sessions are
//! never resumed, because a resumed session would not check the certificate again.

use std::path::Path;
use std::sync::Arc;

use pmd_protocol::peer::NodeId;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::TlsError;
use super::identity::{self, Identity};
use super::keys::DaemonKeys;
use super::revocation::{CertificateIds, ListSigners};
use super::verify::PeerVerifier;
use crate::config::types::IdentitySource;

/// ALPN of a link.
pub const ALPN_LINK: &[u8] = b"pmd-link/1";
/// ALPN of a one-shot connection: for membership frames to daemons without a link, and for probes.
pub const ALPN_PACKET: &[u8] = b"pmd-packet/1";
/// ALPN of a tunnel between two programs.
pub const ALPN_TUNNEL: &[u8] = b"pmd-tunnel/1";
/// ALPN of a connection to a member that relays tunnels.
pub const ALPN_RELAY: &[u8] = b"pmd-relay/1";
/// ALPN of a connection to a voter, for claims.
pub const ALPN_CLAIMS: &[u8] = b"pmd-claims/1";
/// All supported ALPNs.
const ALPNS: [&[u8]; 5] = [ALPN_LINK, ALPN_PACKET, ALPN_TUNNEL, ALPN_RELAY, ALPN_CLAIMS];

/// A daemon's TLS configuration for connections with its peers.
#[derive(Debug)]
pub struct Tls {
    id: NodeId,
    checks_names: bool,
    server: Arc<ServerConfig>,
    /// One configuration per protocol, in the order of [`ALPNS`].
    clients: [Arc<ClientConfig>; ALPNS.len()],
    certificate: CertificateDer<'static>,
    keys: Arc<DaemonKeys>,
    /// The authorities whose lists of revoked certificates count.
    list_signers: ListSigners,
    /// What identifies this daemon's certificates, if an authority has issued them.
    own: Option<Arc<CertificateIds>>,
}

impl Tls {
    /// Loads or generates the key and certificate named by `source`, for the host `host`.
    ///
    /// # Errors
    ///
    /// If a file cannot be used.
    pub fn load(source: &IdentitySource, host: &str) -> Result<Tls, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (identity, verifier, authorities) = match source {
            IdentitySource::Auto { key } => {
                (Identity::of_own_key(key)?, PeerVerifier::of_keys(&provider), Vec::new())
            }
            IdentitySource::Authority { ca, certificate, key } => {
                let identity = Identity::of_files(certificate, key)?;
                let first =
                    identity.chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
                if !is_for(&first, host) {
                    return Err(TlsError::Name { path: certificate.clone(), host: host.to_owned() });
                }
                let authorities = identity::certificates(ca)?;
                let roots = roots(ca, &authorities)?;
                (identity, PeerVerifier::of_authority(&provider, roots)?, authorities)
            }
        };
        let checks_names = matches!(source, IdentitySource::Authority { .. });
        let signers = ListSigners::new(&authorities, provider.signature_verification_algorithms);
        Tls::new(&provider, identity, Arc::new(verifier), (checks_names, signers))
    }

    fn new(
        provider: &Arc<CryptoProvider>,
        identity: Identity,
        verifier: Arc<PeerVerifier>,
        (checks_names, list_signers): (bool, ListSigners),
    ) -> Result<Tls, TlsError> {
        let Identity { chain, key } = identity;
        let own = if checks_names { CertificateIds::of_chain(&chain).map(Arc::new) } else { None };
        let certificate = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let public = identity::public_key(&certificate)?;
        let id = identity::id_of(&certificate)?;
        let keys = Arc::new(DaemonKeys::new(provider, &public, key.clone_key())?);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = ALPNS.map(<[u8]>::to_vec).to_vec();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let clients = ALPNS.map(|alpn| {
            let mut client = client.clone();
            client.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(client)
        });
        let server = Arc::new(server);
        Ok(Tls { id, checks_names, server, clients, certificate, keys, list_signers, own })
    }

    /// This daemon's id: the hash of its public key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This daemon's key, for what it says about itself.
    #[must_use]
    pub fn keys(&self) -> Arc<DaemonKeys> {
        Arc::clone(&self.keys)
    }

    /// The configuration of the accepting side.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The configuration of the dialling side for one of the protocols.
    #[must_use]
    pub fn client(&self, alpn: &[u8]) -> Arc<ClientConfig> {
        let [link, ..] = &self.clients;
        let known = ALPNS.iter().zip(&self.clients).find(|(known, _)| **known == alpn);
        Arc::clone(known.map_or(link, |(_, client)| client))
    }

    /// This daemon's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When this daemon's certificate expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    }

    /// Whether host names in certificates are checked, because an authority issues them.
    #[must_use]
    pub fn checks_names(&self) -> bool {
        self.checks_names
    }

    /// The authorities whose lists of revoked certificates count; none if the certificates are self-signed.
    #[must_use]
    pub fn list_signers(&self) -> Option<&ListSigners> {
        self.checks_names.then_some(&self.list_signers)
    }

    /// What identifies this daemon's certificates, if an authority has issued them.
    #[must_use]
    pub fn own_certificates(&self) -> Option<&CertificateIds> {
        self.own.as_deref()
    }

    /// What identifies the certificates that a peer has presented, which the TLS handshake has verified; none if they are
    /// self-signed.
    ///
    /// # Errors
    ///
    /// If they cannot be read, so that nobody can say whether they are revoked.
    pub fn certificates_of(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<Arc<CertificateIds>>, Unreadable> {
        if !self.checks_names {
            return Ok(None);
        }
        let ids = CertificateIds::of_chain(chain.unwrap_or_default()).ok_or(Unreadable)?;
        Ok(Some(Arc::new(ids)))
    }

    /// The id of the daemon that presented these certificates, which the TLS handshake has verified.
    #[must_use]
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
        identity::id_of(chain?.first()?).ok()
    }

    /// Whether the daemon that presented these certificates may use the host name `host`.
    #[must_use]
    pub fn allows_name(&self, chain: Option<&[CertificateDer<'_>]>, host: &str) -> bool {
        !self.checks_names
            || chain.and_then(<[_]>::first).is_some_and(|certificate| is_for(certificate, host))
    }
}

/// Whether a certificate is for this host name.
fn is_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    ServerName::try_from(host).is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

/// The error of certificates that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's certificates cannot be read")]
pub struct Unreadable;

fn roots(path: &Path, authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots
            .add(certificate.clone())
            .map_err(|error| TlsError::Unusable { path: path.into(), reason: error.to_string() })?;
    }
    Ok(roots)
}
