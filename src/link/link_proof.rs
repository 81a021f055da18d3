//! What the peer of a link has proven, for as long as the link lives.
//!
//! A link outlives the secret that admitted it. When the secret is replaced, both ends prove the new one over the link, in
//! the session that it belongs to; a link whose peer does not is closed.

use std::sync::{Mutex, PoisonError};

use pmd_protocol::peer::frame::Proof;

use crate::auth::cookie::CookieKey;
use crate::auth::proof::{Role, Session};

/// The latest proof of the peer of a link.
#[derive(Debug)]
pub struct LinkProof {
    session: Session,
    /// This daemon's side.
    role: Role,
    mac: Mutex<[u8; 32]>,
}

impl LinkProof {
    /// The peer has sent `mac` in the handshake of `session`, in which this daemon had the side `role`.
    #[must_use]
    pub fn new(session: Session, role: Role, mac: [u8; 32]) -> LinkProof {
        LinkProof { session, role, mac: Mutex::new(mac) }
    }

    /// This daemon's proof that it knows the secret of this key.
    #[must_use]
    pub fn prove(&self, key: &CookieKey) -> Proof {
        Proof { mac: self.session.prove(key, self.role), other: None }
    }

    /// The peer has sent another proof.
    pub fn replace(&self, proof: &Proof) {
        *self.mac.lock().unwrap_or_else(PoisonError::into_inner) = proof.mac;
    }

    /// Whether the peer's latest proof was made with the secret of this key.
    #[must_use]
    pub fn is_of(&self, key: &CookieKey) -> bool {
        let mac = *self.mac.lock().unwrap_or_else(PoisonError::into_inner);
        self.session.verify(key, self.role.other(), &mac)
    }
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::NodeId;

    use super::*;
    use crate::auth::cookie::Cookies;

    #[test]
    fn a_proof_counts_for_its_secret_its_side_and_its_session() {
        let session = |number| Session {
            exporter: [number; 32],
            initiator: NodeId::new([1; 32]),
            acceptor: NodeId::new([2; 32]),
            protocol: 2,
        };
        let (old, new) = (Cookies::of_text(&"a".repeat(64)), Cookies::of_text(&"b".repeat(64)));
        let (old, new) = (old.current().expect("one"), new.current().expect("one"));
        let mine = LinkProof::new(session(1), Role::Initiator, session(1).prove(old, Role::Acceptor));
        let theirs = LinkProof::new(session(1), Role::Acceptor, [0; 32]);
        assert!(mine.is_of(old) && !mine.is_of(new));
        mine.replace(&theirs.prove(new));
        assert!(mine.is_of(new) && !mine.is_of(old));
        mine.replace(&mine.prove(new));
        assert!(!mine.is_of(new), "reflected");
        mine.replace(&LinkProof::new(session(9), Role::Acceptor, [0; 32]).prove(new));
        assert!(!mine.is_of(new), "replayed from another session");
    }
}
