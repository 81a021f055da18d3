//! Members that a liar has invented. It signs for each of them with a key that it made.

use std::sync::Arc;

use pmd::base::clock::now_ms;
use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::Identity;
use pmd_core::membership::record::Record;
use pmd_core::replica::content::Content;
use pmd_protocol::peer::{Generation, PublicKey, Signature, Update};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::attacker::{host, statements};

/// The keys of an invented member.
#[derive(Debug)]
struct InventedKeys {
    public: PublicKey,
    private: Arc<dyn SigningKey>,
}

impl Keys for InventedKeys {
    fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let signer = self.private.choose_scheme(&[SignatureScheme::ED25519]).expect("a key of this kind");
        let scheme = u16::from(SignatureScheme::ED25519).to_be_bytes();
        let signature = signer.sign(message).expect("a signature");
        Signature::new(&[&scheme, signature.as_slice()].concat()).expect("a short signature")
    }

    fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
        true
    }
}

/// Another invented member, which is at an address that nobody has, and its entries.
pub(super) fn invent(number: u16) -> (Record, Vec<Update>) {
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let private = PrivateKeyDer::try_from(pair.serialize_der()).expect("a key");
    let private = aws_lc_rs::default_provider().key_provider.load_private_key(private).expect("a key");
    let public = PublicKey::new(&pair.subject_public_key_info()).expect("a short key");
    let keys = InventedKeys { public: public.clone(), private };
    let generation = Generation { boot_ms: now_ms(), nonce: number.into() };
    let [high, low] = number.to_be_bytes();
    let identity = Identity::new(id_of(&public), generation, &[([10, 77, 200 | high, low], 4369).into()]);
    let mut content = Content::new(generation);
    let (key, value) = host(&format!("invented{number}")).write().expect("an entry");
    content.put(key, value);
    statements(&keys, identity, &content)
}
