//! The daemon's key as the core uses it: it signs what this daemon says, and checks what others have signed.
//!
//! The key is that of the certificate, of whatever kind TLS 1.3 knows, so the id of a daemon vouches for its statements as
//! well as for its connections.

use std::fmt;
use std::sync::Arc;

use pmd_core::attest::Keys;
use pmd_protocol::peer::{PublicKey, Signature};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Bytes of the scheme in front of a signature.
const SCHEME: usize = 2;

/// The key of this daemon.
pub struct DaemonKeys {
    public: PublicKey,
    private: Arc<dyn SigningKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for DaemonKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonKeys").field("public", &self.public).finish_non_exhaustive()
    }
}

impl DaemonKeys {
    /// The key pair of a certificate: the public key as SubjectPublicKeyInfo, and the private key.
    ///
    /// # Errors
    ///
    /// If the key is of a kind that TLS does not know, or too long.
    pub(super) fn new(
        provider: &CryptoProvider,
        public: &[u8],
        private: PrivateKeyDer<'static>,
    ) -> Result<DaemonKeys, Error> {
        let public =
            PublicKey::new(public).ok_or_else(|| Error::General("the public key is too long".into()))?;
        let private = provider.key_provider.load_private_key(private)?;
        Ok(DaemonKeys { public, private, algorithms: provider.signature_verification_algorithms })
    }

    fn try_sign(&self, message: &[u8]) -> Option<Signature> {
        let schemes: Vec<SignatureScheme> =
            self.algorithms.mapping.iter().map(|(scheme, _)| *scheme).collect();
        let signer = self.private.choose_scheme(&schemes)?;
        let signature = signer.sign(message).ok()?;
        let scheme = u16::from(signer.scheme()).to_be_bytes();
        Signature::new(&[&scheme, signature.as_slice()].concat())
    }
}

impl Keys for DaemonKeys {
    fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// An empty signature, which nobody accepts, if the key cannot sign.
    fn sign(&self, message: &[u8]) -> Signature {
        self.try_sign(message).unwrap_or_default()
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let Some((scheme, signature)) = signature.as_bytes().split_first_chunk::<SCHEME>() else {
            return false;
        };
        let scheme = SignatureScheme::from(u16::from_be_bytes(*scheme));
        let Ok((_, key)) = SubjectPublicKeyInfo::from_der(key.as_bytes()) else { return false };
        let algorithms = self.algorithms.mapping.iter().filter(|(known, _)| *known == scheme);
        let algorithms = algorithms.flat_map(|(_, algorithms)| algorithms.iter().copied());
        is_signed(algorithms, &key, message, signature)
    }
}

/// Whether `message` was signed with this key by one of these algorithms.
pub(super) fn is_signed(
    mut algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    key: &SubjectPublicKeyInfo<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    algorithms.any(|algorithm| {
        // The key alone does not determine the algorithm, and an algorithm is for one kind of key.
        is_identifier(&algorithm.public_key_alg_id(), &key.algorithm)
            && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
    })
}

/// Whether DER without its outer tag is that of this algorithm identifier.
pub(super) fn is_identifier(expected: &[u8], kind: &x509_parser::x509::AlgorithmIdentifier<'_>) -> bool {
    // OBJECT IDENTIFIER and parameters, as they stand in the key.
    let oid = kind.algorithm.as_bytes();
    let parameters = kind.parameters.as_ref();
    let Some(rest) = expected.strip_prefix(&[0x06]) else { return false };
    let Some((length, rest)) = rest.split_first() else { return false };
    let Some((expected_oid, expected_parameters)) = rest.split_at_checked(usize::from(*length)) else {
        return false;
    };
    let parameters = parameters.map_or_else(Vec::new, |parameters| {
        let header = [u8::try_from(parameters.tag().0), u8::try_from(parameters.data.len())];
        header.into_iter().flatten().chain(parameters.data.iter().copied()).collect()
    });
    expected_oid == oid && expected_parameters == parameters
}

#[cfg(test)]
mod tests {
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    };

    use super::*;

    fn keys(pair: &KeyPair) -> DaemonKeys {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let private = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        DaemonKeys::new(&provider, &pair.subject_public_key_info(), private).unwrap()
    }

    #[test]
    fn keys_of_every_kind_sign_what_others_can_verify() {
        let other = keys(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
        for kind in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
            let own = keys(&KeyPair::generate_for(kind).unwrap());
            let signature = own.sign(b"message");
            assert!(other.verify(&own.public_key(), b"message", &signature), "{kind:?}");
            assert!(!other.verify(&own.public_key(), b"another", &signature), "{kind:?}");
            assert!(!other.verify(&other.public_key(), b"message", &signature), "{kind:?}");
            assert!(!other.verify(&own.public_key(), b"message", &other.sign(b"message")), "{kind:?}");
            for cut in [0, 1, 2, 10] {
                let short = Signature::new(&signature.as_bytes()[..cut]).unwrap();
                assert!(!other.verify(&own.public_key(), b"message", &short), "{kind:?} {cut}");
            }
        }
        assert!(!other.verify(&PublicKey::default(), b"message", &other.sign(b"message")));
        assert!(!other.verify(&PublicKey::new(&[0x30; 44]).unwrap(), b"message", &other.sign(b"message")));
    }
}
