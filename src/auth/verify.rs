//! Verification of peer certificates in the TLS handshake.
//!
//! With self-signed keys (`auto`), every certificate is accepted: it only carries the key, TLS proves that the peer
//! owns it, and the cluster secret decides on admission. With a certificate authority, only certificates that it issued
//! are accepted. Signatures are verified in both cases.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore, SignatureScheme,
};

/// Checks the certificates of peers, whichever side dialled.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    authority: Option<Authority>,
}

#[derive(Debug)]
struct Authority {
    roots: Arc<RootCertStore>,
    /// Verifies the certificate of the dialling side.
    clients: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    /// Accepts every key.
    pub(super) fn of_keys(provider: &CryptoProvider) -> PeerVerifier {
        PeerVerifier { algorithms: provider.signature_verification_algorithms, authority: None }
    }

    /// Accepts certificates issued by one authority.
    pub(super) fn of_authority(
        provider: &Arc<CryptoProvider>,
        roots: RootCertStore,
    ) -> Result<PeerVerifier, Error> {
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(PeerVerifier { algorithms, authority: Some(Authority { roots, clients }) })
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// Ignores the name: daemons are dialled by address, and the host name in the peer's `Hello` is checked later.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if let Some(authority) = &self.authority {
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &authority.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A daemon has only one certificate, so it needs no hint which one to choose.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.authority {
            Some(authority) => authority.clients.verify_client_cert(certificate, intermediates, now),
            None => ParsedCertificate::try_from(certificate).map(|_| ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
