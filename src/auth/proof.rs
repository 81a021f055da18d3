//! The proof that a peer knows the cluster secret, bound to the TLS session.
//!
//! Both sides export 32 bytes that only the two ends of the session share (RFC 9266, `tls-exporter`) and send
//!
//! ```text
//!   HMAC-SHA256(K, "pmd link proof" | role | exporter | id of the initiator | id of the acceptor | protocol version)
//! ```
//!
//! with K derived from the cluster secret; the initiator sends first. A proof replayed from another session has a
//! different exporter value, and so has one relayed by a man in the middle between two sessions. A reflected proof has
//! the wrong role.

use pmd_protocol::peer::NodeId;

use super::cookie::CookieKey;

/// The label of the exporter (RFC 9266, section 4.2); its context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

const PURPOSE: &str = "pmd link proof";

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that dialled; it sends its proof first.
    Initiator,
    /// The side that was dialled.
    Acceptor,
}

impl Role {
    /// The other side.
    #[must_use]
    pub fn other(self) -> Role {
        match self {
            Role::Initiator => Role::Acceptor,
            Role::Acceptor => Role::Initiator,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Role::Initiator => "initiator",
            Role::Acceptor => "acceptor",
        }
    }
}

/// The session that a proof is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The keying material that both ends of the TLS session export.
    pub exporter: [u8; 32],
    /// The daemon that dialled.
    pub initiator: NodeId,
    /// The daemon that was dialled.
    pub acceptor: NodeId,
    /// The version of the protocol.
    pub protocol: u16,
}

impl Session {
    /// Computes the proof of the side `role`.
    #[must_use]
    pub fn prove(&self, key: &CookieKey, role: Role) -> [u8; 32] {
        key.sign(PURPOSE, &self.parts(role, &self.protocol.to_be_bytes()))
    }

    /// Whether `mac` proves that the side `role` knows the cluster secret.
    #[must_use]
    pub fn verify(&self, key: &CookieKey, role: Role, mac: &[u8; 32]) -> bool {
        key.verify(PURPOSE, &self.parts(role, &self.protocol.to_be_bytes()), mac)
    }

    fn parts<'a>(&'a self, role: Role, protocol: &'a [u8; 2]) -> [&'a [u8]; 5] {
        let (initiator, acceptor) = (self.initiator.as_bytes(), self.acceptor.as_bytes());
        [role.as_str().as_bytes(), &self.exporter, initiator, acceptor, protocol]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cookie::Cookies;

    #[test]
    fn a_proof_is_bound_to_secret_session_and_role() {
        let cookies = Cookies::of_text(&"1".repeat(64));
        let key = cookies.current().expect("it has one");
        let session = Session {
            exporter: [1; 32],
            initiator: NodeId::new([2; 32]),
            acceptor: NodeId::new([3; 32]),
            protocol: 1,
        };
        let mac = session.prove(key, Role::Initiator);
        assert!(session.verify(key, Role::Initiator, &mac));
        assert!(!session.verify(key, Role::Acceptor, &mac));
        let others = [
            Session { exporter: [9; 32], ..session },
            Session { initiator: session.acceptor, acceptor: session.initiator, ..session },
            Session { acceptor: NodeId::new([9; 32]), ..session },
            Session { protocol: 2, ..session },
        ];
        for other in others {
            assert!(!other.verify(key, Role::Initiator, &mac), "{other:?}");
        }
        let wrong = Cookies::of_text(&"2".repeat(64));
        assert!(!session.verify(wrong.current().expect("it has one"), Role::Initiator, &mac));
    }
}
