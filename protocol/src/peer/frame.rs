//! The messages between daemons.
//!
//! ```text
//!   initiator                                acceptor
//!   Preface, Proof ──────────────────────▶
//!         ◀─────────────────────── Proof, Hello      the acceptor says nothing before it has checked the proof
//!   Hello ───────────────────────────────▶           up to here at most 1 KiB each
//!   Heartbeat, Membership, Update, … ◀──▶             at most 64 KiB each
//!   Close ───────────────────────────────▶           at any time, by the side that ends the link
//! ```
//!
//! A peer that does not know the cluster secret receives only a `Close`. On a tunnel, the handshake is followed by
//! `Open` and `Opened`, then by the bytes of the two programs.
//!
//! A receiver uses the length to skip unknown messages. A newer version may append fields to a message; the receiver
//! ignores any bytes after the fields it knows. If existing fields change their meaning, the layout number is raised
//! and older versions skip the message.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::bounded;
use super::expulsion::Expulsions;
use super::id::{Digest, Generation, NodeId, Stamp};
use super::key::{Key, Kind, Value};
use super::revocation::RevocationList;
use super::rotation::Rotation;
use super::update::{Update, Updates};
use crate::limits::{
    MAX_ADDRESSES, MAX_ANSWERED, MAX_CLUSTER_NAME, MAX_HOST_NAME, MAX_KEY_NAME, MAX_LOST, MAX_MEMBERSHIP,
    MAX_RANGES, MAX_REASON, MAX_STAMPS, MAX_VERSION_TEXT,
};

/// The protocol version that this crate speaks. It is raised when daemons can no longer talk to older ones.
pub const PROTOCOL: u16 = 2;

/// Declares every kind of frame once: its number on the wire, and its name, which is also the name of its body type.
macro_rules! frames {
    ($($(#[$doc:meta])* $kind:literal $name:ident,)+) => {
        /// One message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame {
            $($(#[$doc])* $name($name),)+
        }

        impl Frame {
            /// The number of this kind of message on the wire.
            #[must_use]
            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $kind,)+
                }
            }

            /// Reads the body of a message of this kind; `None` if the kind is unknown. Bytes after the known fields
            /// are from a newer version and are ignored.
            pub(super) fn read(kind: u8, body: &[u8]) -> Option<postcard::Result<Self>> {
                Some(match kind {
                    $($kind => postcard::take_from_bytes(body).map(|(body, _)| Self::$name(body)),)+
                    _ => return None,
                })
            }

            /// Writes the body of the message.
            pub(super) fn write(&self) -> postcard::Result<Vec<u8>> {
                match self {
                    $(Self::$name(body) => postcard::to_allocvec(body),)+
                }
            }
        }
    };
}

frames! {
    // Handshake, on every connection.
    /// The initiator's protocol version. Its first message. Version 1 began its first message, of this number, with the
    /// same field, so both versions recognise each other.
    1 Preface,
    /// Proves that the sender knows the cluster secret. The initiator's second message, and the acceptor's first.
    2 Proof,
    /// Ends the connection and states the reason.
    3 Close,
    /// Introduces the sender, after both proofs.
    4 Hello,

    // Links.
    /// Shows that the sender is alive, and summarises its registry.
    16 Heartbeat,
    /// Records of the membership protocol.
    17 Membership,
    /// New operations of one origin.
    18 Update,
    /// The versions that the sender has, without the content.
    19 Have,
    /// A request for updates.
    20 Pull,
    /// Origins whose updates the sender already receives from others.
    21 Prune,
    /// Fingerprints of what the sender has, range by range.
    22 Ranges,
    /// A request to find out whether a member can be reached.
    23 Probe,
    /// The result of a probe.
    24 Probed,
    /// Members that the sender considers dead.
    25 Lost,
    /// New operations of several origins.
    26 Updates,
    /// The time by the sender's clock.
    27 Clock,
    /// A summary of the sender's registry outside the heartbeat schedule.
    28 Tally,
    /// Members that were expelled or readmitted.
    29 Expulsions,
    /// The next cluster secret, and how far its introduction is.
    30 Rotation,
    /// The certificates that an authority has revoked.
    31 RevocationList,

    // Tunnels; the last one is also sent on links.
    /// The destination of a tunnel. The first message on a tunnel, sent by its entry.
    48 Open,
    /// The tunnel is open; the bytes of the two programs follow. The exit's answer, unless it closes the tunnel.
    49 Opened,
    /// A request to dial, from a daemon that cannot dial the other one.
    50 DialBack,
    /// The dial request that a connection answers.
    51 Back,
    /// The member to which a relay connects this connection.
    52 Relay,
    /// A request to leave the cluster.
    53 Depart,
    /// A question about what is registered on the receiver's host. On links, and the first message on a connection for a
    /// tunnel that serves only this question.
    54 Ask,
    /// What is registered there.
    55 Answer,
}

/// What an acceptor needs to reject a daemon that it cannot understand. It contains nothing about the cluster, because
/// the receiver may be anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preface {
    /// See [`PROTOCOL`].
    pub protocol: u16,
}

/// The identity of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id, which must be the hash of the key in its certificate.
    pub id: NodeId,
    /// Its current generation.
    pub generation: Generation,
    /// How often it was declared dead, or changed its addresses, in this generation.
    pub renewal: u32,
    /// The name of its host, at most [`MAX_HOST_NAME`] bytes. A certificate of the cluster's authority must name it.
    #[serde(deserialize_with = "bounded::text::<_, MAX_HOST_NAME>")]
    pub host: String,
    /// The name of its cluster, at most [`MAX_CLUSTER_NAME`] bytes. Daemons with different names reject each other.
    #[serde(deserialize_with = "bounded::text::<_, MAX_CLUSTER_NAME>")]
    pub cluster: String,
    /// The addresses it can be reached at, in order of preference; at most [`MAX_ADDRESSES`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_ADDRESSES>")]
    pub addresses: Vec<SocketAddr>,
    /// The version of its software, at most [`MAX_VERSION_TEXT`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_VERSION_TEXT>")]
    pub software: String,
}

/// The HMAC that proves knowledge of the cluster secret in this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// HMAC-SHA256 over the role, exported keying material, both ids and the protocol version.
    pub mac: [u8; 32],
    /// The HMAC with the second secret, from an initiator that holds two during a secret rotation. The acceptor answers
    /// with the one it knows.
    pub other: Option<[u8; 32]>,
}

/// Ends a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The reason, which tells the receiver how to react.
    pub reason: Reason,
    /// A human-readable explanation, at most [`MAX_REASON`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_REASON>")]
    pub text: String,
}

/// The reason why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The daemon leaves the cluster.
    Leaving,
    /// The two daemons are already linked, and keep the other link.
    Duplicate,
    /// The overlay no longer needs this link.
    NotNeeded,
    /// The cluster, the protocol or the identity does not match. Retrying does not help.
    Refused,
    /// Too many links or handshakes at the moment. Retry later.
    Busy,
    /// The receiver violated the protocol.
    Violation,
    /// The destination of the tunnel is registered but not listening.
    Silent,
    /// The proof was made with a different cluster secret.
    Cookie,
    /// The receiver was expelled from the cluster.
    Expelled,
    /// The receiver's certificate was revoked by its authority.
    Revoked,
}

/// A heartbeat. Most take ten bytes, because unchanged fields are omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Increases by one with each heartbeat on this link, and wraps after 255.
    pub sequence: u8,
    /// The time until the next heartbeat, in tenths of a second.
    pub next_ds: u16,
    /// A summary of the sender's registry, in the first heartbeat and whenever it has changed.
    pub summary: Option<Summary>,
    /// The latest heartbeat that the sender has received, sent from time to time so that the receiver can measure the
    /// round-trip time.
    pub echo: Option<Echo>,
}

/// A summary of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The first 8 bytes of its fingerprint.
    pub fingerprint: [u8; 8],
    /// The number of live members that its owner sees, including itself.
    pub members: u32,
}

/// An answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The sequence number of that heartbeat.
    pub sequence: u8,
    /// How long the sender has delayed the answer, in milliseconds.
    pub held_ms: u16,
}

/// The current summary of the sender's registry, for a receiver that does not want to wait for a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The sender's registry.
    pub summary: Summary,
    /// Whether the sender asks for a tally in return.
    pub asks: bool,
}

/// Records of the membership protocol, opaque to this crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// At most [`MAX_MEMBERSHIP`] bytes.
    #[serde(deserialize_with = "bounded::bytes::<_, MAX_MEMBERSHIP>")]
    pub records: Vec<u8>,
}

/// The versions that the sender has of some origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The sender's stamp of each origin; at most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub stamps: Vec<(NodeId, Stamp)>,
    /// Ranges of ids, first and last, in which the sender has no live origins other than those in `stamps`; at most
    /// [`MAX_RANGES`]. A receiver with additional origins in such a range sends them.
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_RANGES>")]
    pub complete: Vec<(NodeId, NodeId)>,
}

/// A request for updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Origins and the sender's stamp of each; without a stamp, the receiver sends a snapshot. At most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub wants: Vec<(NodeId, Option<Stamp>)>,
    /// Whether the sender also wants later updates of these origins to be pushed: Plumtree's GRAFT.
    pub graft: bool,
}

/// Plumtree's PRUNE: updates of these origins arrive earlier on other links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// At most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub origins: Vec<NodeId>,
}

/// One range of ids, with the sender's fingerprint of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first id of the range.
    pub first: NodeId,
    /// The last id of the range.
    pub last: NodeId,
    /// The fingerprint of the live origins in it.
    pub digest: Digest,
    /// The number of live origins in it.
    pub count: u32,
}

/// Range reconciliation: fingerprints of parts of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// At most [`MAX_RANGES`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_RANGES>")]
    pub ranges: Vec<Range>,
}

/// A request to find out whether a member can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Identifies the request; returned with the result.
    pub token: u64,
    /// The member to reach.
    pub target: NodeId,
    /// The generation of it to reach.
    pub generation: Generation,
}

/// The result of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The token of the request.
    pub token: u64,
    /// What the sender observed.
    pub observation: Observation,
}

/// Members that the sender considers dead but the receiver may still see, for example after a partition heals. They
/// must be told, because only they can refute it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// At most [`MAX_LOST`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_LOST>")]
    pub members: Vec<NodeId>,
}

/// The time by the sender's clock, sent when a link comes up and when that clock is set. No decision depends on it; it
/// allows operators to notice that the clocks of their hosts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Milliseconds since the Unix epoch when the message is sent.
    pub wall_ms: u64,
}

/// The destination of a tunnel: an entry registered at its exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The kind of entry.
    pub kind: Kind,
    /// Its name, at most [`MAX_KEY_NAME`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_KEY_NAME>")]
    pub name: String,
    /// The creation that is expected; others are rejected. 0 means any.
    pub creation: u32,
}

/// A tunnel is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The port it leads to.
    pub port: u16,
    /// How long the destination took to accept the connection of the exit, in microseconds.
    pub took_us: u32,
}

/// A request to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialBack {
    /// The daemon that wants the connection.
    pub asker: NodeId,
    /// The daemon that is asked to dial. A member that is neither forwards the request if it has a link to the target.
    pub target: NodeId,
    /// The daemon to dial: the asker, or a relay that both can reach.
    pub at: NodeId,
    /// Identifies the connection; [`Back`] carries it.
    pub token: [u8; 16],
}

/// The first message on a connection requested by a [`DialBack`], from the side that dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// The token of the request.
    pub token: [u8; 16],
}

/// The first message on a connection to a relay, from the side that wants to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The member to connect to.
    pub target: NodeId,
}

/// A request to leave the cluster and stay out until the daemon is explicitly told to join again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depart {
    /// The daemon that is asked to leave.
    pub target: NodeId,
    /// The generation of it that should leave; later ones are not affected.
    pub generation: Generation,
}

/// A question about what is registered under a name on the receiver's host. A member speaks only for itself, so neither
/// the question nor the answer is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Identifies the question; returned with the answer.
    pub number: u64,
    /// The name, at most [`MAX_KEY_NAME`] bytes.
    #[serde(deserialize_with = "bounded::text::<_, MAX_KEY_NAME>")]
    pub name: String,
}

/// The answer to an [`Ask`]. The sender's signed entries will say the same as soon as they arrive, and remain what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The number of the question.
    pub number: u64,
    /// The node and the service of that name, as far as they exist; at most [`MAX_ANSWERED`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_ANSWERED>")]
    pub entries: Vec<(Key, Value)>,
}

/// The result of an attempt to reach a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Observation {
    /// The daemon answered.
    Reached,
    /// No answer came in time.
    Silent,
    /// The host refused the connection: nothing is listening there.
    Refused,
    /// The observer could not look, or does not trust what it saw because it is slow itself. This says nothing about the
    /// daemon, but it shows that the observer is there (Lifeguard's "nack").
    Unknown,
}
