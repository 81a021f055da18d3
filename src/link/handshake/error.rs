//! Why handshakes fail, and what the other side is told.

use std::io;

use pmd_protocol::peer::codec::PeerError;
use pmd_protocol::peer::frame::{PROTOCOL, Reason};
use pmd_protocol::peer::{FrameError, NodeId};

use super::TIMEOUT;
use crate::auth::revocation::Serial;
use crate::base::foreign::{ForeignText, one_line};
use crate::base::stats::Counters;

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
    /// The authority has revoked the peer's certificate.
    #[error("the peer's certificate, for host {host}, is revoked (serial number {serial})")]
    Revoked {
        /// The host that it is for.
        host: ForeignText,
        /// The serial number of the revoked certificate.
        serial: Serial,
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
            HandshakeError::Revoked { .. } => "revoked",
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
            | HandshakeError::Expelled { .. }
            | HandshakeError::Revoked { .. } => {
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
    pub(super) fn close_reason(&self) -> Option<(Reason, String)> {
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
            HandshakeError::Revoked { host, serial } => {
                let text = format!("the certificate of host {host} is revoked (serial number {serial})");
                Some((Reason::Revoked, text))
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

/// The peer's reason. That of a code which has words of its own is not taken from the peer.
fn in_words(reason: Reason, text: &ForeignText) -> String {
    match reason {
        Reason::Cookie => "cookie mismatch".to_owned(),
        _ if text.is_empty() => format!("the peer closed the connection ({reason:?})"),
        _ => format!("the peer says {text}"),
    }
}
