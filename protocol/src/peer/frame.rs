//! What daemons say to each other, message by message.
//!
//! ```text
//!   initiator                                acceptor
//!   Hello ───────────────────────────────▶
//!         ◀─────────────────────────────── Hello
//!   Proof ───────────────────────────────▶           at most 1 KiB each until here
//!         ◀─────────────────────────────── Proof
//!   Heartbeat, Membership, Update, … ◀──▶             at most 64 KiB each
//!   Bye   ───────────────────────────────▶           any time, by whoever ends it
//! ```
//!
//! On a tunnel `Open` and `Opened` follow the proofs, and after them the bytes of two programs.
//!
//! A message that this version does not know is skipped by its length. A newer version may append fields to a message;
//! what follows the known fields is not looked at. If old fields change their meaning, the layout is raised, and an
//! older version skips the message.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::bounded;
use super::id::{Digest, Generation, NodeId, Stamp};
use super::key::Kind;
use super::update::{Update, Updates};
use crate::limits::{
    MAX_ADDRESSES, MAX_CLUSTER_NAME, MAX_HOST_NAME, MAX_KEY_NAME, MAX_LOST, MAX_MEMBERSHIP, MAX_RANGES,
    MAX_REASON, MAX_STAMPS, MAX_VERSION_TEXT,
};

/// The version of the protocol that this crate speaks. Raised when daemons can no longer talk to older ones.
pub const PROTOCOL: u16 = 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who I am. The first message of both sides.
    Hello(Hello),
    /// That I know the cookie. The second message of both sides.
    Proof(Proof),
    /// Why the link ends.
    Bye(Bye),
    /// That I live, and what my registry amounts to.
    Heartbeat(Heartbeat),
    /// A packet of the membership protocol.
    Membership(Membership),
    /// News about one origin.
    Update(Update),
    /// News about several.
    Updates(Updates),
    /// What I have, without the content.
    Have(Have),
    /// What I want.
    Pull(Pull),
    /// Whose updates I get from others already.
    Prune(Prune),
    /// What I have, range by range.
    Ranges(Ranges),
    /// A request to see whether somebody can be reached.
    Probe(Probe),
    /// The result.
    Probed(Probed),
    /// Whom I take for dead.
    Lost(Lost),
    /// What the sender's clock says.
    Clock(Clock),
    /// What my registry amounts to, between heartbeats.
    Tally(Tally),
    /// What a tunnel shall lead to. The first message on a tunnel, by its entry.
    Open(Open),
    /// That it does; what follows is the bytes of the two programs. The answer of its exit, unless it says farewell.
    Opened(Opened),
    /// A request to dial, by a daemon that cannot dial itself.
    DialBack(DialBack),
    /// Which request a connection was made for.
    Back(Back),
    /// To whom a relay shall connect this connection.
    Relay(Relay),
    /// That the receiver shall leave the cluster.
    Depart(Depart),
}

/// Who a daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`PROTOCOL`].
    pub protocol: u16,
    /// Its id; must be the hash of the key in its certificate.
    pub id: NodeId,
    /// Which of its lives this is.
    pub generation: Generation,
    /// How often it was declared dead in this life, or has moved: see the membership.
    pub renewal: u32,
    /// The name of its host, at most [`MAX_HOST_NAME`] bytes; what a certificate of the cluster's authority has to say.
    #[serde(deserialize_with = "text::<_, MAX_HOST_NAME>")]
    pub host: String,
    /// The name of its cluster, at most [`MAX_CLUSTER_NAME`] bytes. Different names do not talk.
    #[serde(deserialize_with = "text::<_, MAX_CLUSTER_NAME>")]
    pub cluster: String,
    /// Where others can reach it, best first; at most [`MAX_ADDRESSES`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_ADDRESSES>")]
    pub addresses: Vec<SocketAddr>,
    /// The version of its program, at most [`MAX_VERSION_TEXT`] bytes.
    #[serde(deserialize_with = "text::<_, MAX_VERSION_TEXT>")]
    pub software: String,
}

/// The HMAC that only a holder of the cookie can make for this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// HMAC-SHA256 over role, exported keying material, both ids and the protocol's version.
    pub mac: [u8; 32],
    /// The same with the other cookie, from an initiator that has two while the cookie is being changed. The acceptor
    /// answers with the one that it knows.
    pub other: Option<[u8; 32]>,
}

/// A farewell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// What the other side can do about it.
    pub reason: Reason,
    /// For people, at most [`MAX_REASON`] bytes.
    #[serde(deserialize_with = "text::<_, MAX_REASON>")]
    pub text: String,
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The daemon leaves the cluster.
    Leaving,
    /// There is a link between the two already; that one is kept.
    Duplicate,
    /// The overlay does not need this link any more.
    NotNeeded,
    /// Another cluster, another protocol, or no proof. Trying again does not help.
    Refused,
    /// Too many links or handshakes at the moment. Try again later.
    Busy,
    /// The other side sent what no honest daemon sends.
    Violation,
    /// What a tunnel was to lead to is registered, and does not listen.
    Silent,
}

/// A sign of life. Most are ten bytes: what has not changed since the last on this link is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Increases by one with each heartbeat on this link, and begins again after 255.
    pub sequence: u8,
    /// The next will come in this many tenths of a second.
    pub next_ds: u16,
    /// What the sender's registry amounts to; in the first heartbeat, and whenever it has changed.
    pub summary: Option<Summary>,
    /// Now and then the latest heartbeat that the sender has received, for the receiver to measure the round trip.
    pub echo: Option<Echo>,
}

/// What a registry amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The first 8 bytes of its fingerprint.
    pub fingerprint: [u8; 8],
    /// How many live members its owner sees, itself included.
    pub members: u32,
}

/// An answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Its sequence number.
    pub sequence: u8,
    /// How long the answer has waited to be sent, in milliseconds.
    pub held_ms: u16,
}

/// What the sender's registry amounts to at this moment, for somebody who does not want to wait for heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// See [`Summary`].
    pub summary: Summary,
    /// Whether the receiver shall say the same of its own.
    pub asks: bool,
}

/// A packet of the membership protocol, opaque here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// At most [`MAX_MEMBERSHIP`] bytes.
    #[serde(deserialize_with = "bytes::<_, MAX_MEMBERSHIP>")]
    pub packet: Vec<u8>,
}

/// A summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// What the sender has of these origins; at most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub stamps: Vec<(NodeId, Stamp)>,
    /// Ranges of ids, first and last, in which the sender has nothing live but `stamps`; at most [`MAX_RANGES`]. A
    /// receiver that has more in one of them answers with it.
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_RANGES>")]
    pub complete: Vec<(NodeId, NodeId)>,
}

/// A request for updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Origins, and what the sender has of them; nothing asks for a snapshot. At most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub wants: Vec<(NodeId, Option<Stamp>)>,
    /// Whether the receiver shall push later updates of these origins at once: Plumtree's GRAFT.
    pub graft: bool,
}

/// Plumtree's PRUNE: updates of these origins arrive faster on other ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// At most [`MAX_STAMPS`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_STAMPS>")]
    pub origins: Vec<NodeId>,
}

/// One range of ids, and what the sender has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first id of the range.
    pub first: NodeId,
    /// The last.
    pub last: NodeId,
    /// The fingerprint of the live origins in it.
    pub digest: Digest,
    /// How many they are.
    pub count: u32,
}

/// Range reconciliation: fingerprints of parts of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// At most [`MAX_RANGES`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_RANGES>")]
    pub ranges: Vec<Range>,
}

/// A request to see whether somebody can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Goes back with the result.
    pub token: u64,
    /// Who.
    pub target: NodeId,
    /// In which life.
    pub generation: Generation,
}

/// The result of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// That of the request.
    pub token: u64,
    /// What was seen.
    pub sight: Sight,
}

/// Members that the sender has lost and the receiver may still see: a split has healed. They have to be told, because
/// only they can refute their death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// At most [`MAX_LOST`].
    #[serde(deserialize_with = "bounded::vec::<_, _, MAX_LOST>")]
    pub members: Vec<NodeId>,
}

/// What the sender's clock says: told at the beginning of a link, and when somebody has set that clock. Nothing depends on
/// it; people whose hosts differ are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Milliseconds since the Unix epoch, as this is sent.
    pub wall_ms: u64,
}

/// What a tunnel shall lead to: something that is registered at its exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What kind of thing.
    pub kind: Kind,
    /// Its name, at most [`MAX_KEY_NAME`] bytes.
    #[serde(deserialize_with = "text::<_, MAX_KEY_NAME>")]
    pub name: String,
    /// Which life of it is meant; a later one is refused. 0 for any.
    pub creation: u32,
}

/// A tunnel is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The port that it leads to.
    pub port: u16,
    /// How long the exit has waited for it to accept the connection, in microseconds.
    pub took_us: u32,
}

/// A request to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialBack {
    /// Who wants the connection.
    pub asker: NodeId,
    /// Who shall dial. A member that is neither passes the request on if it has a link to it.
    pub target: NodeId,
    /// Whom to dial: the asker, or a relay that both can reach.
    pub at: NodeId,
    /// Tells the connection from others: [`Back`] carries it.
    pub token: [u8; 16],
}

/// The first message on a connection that was asked for by a [`DialBack`], by who has dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// That of the request.
    pub token: [u8; 16],
}

/// The first message on a connection to a relay, by who wants to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// To whom.
    pub target: NodeId,
}

/// A request to leave the cluster, and to stay away until somebody there wants to join again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depart {
    /// Who.
    pub target: NodeId,
    /// In which life: a later one is not meant.
    pub generation: Generation,
}

/// What a daemon saw of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sight {
    /// It answered.
    Reached,
    /// Nothing came back in time.
    Silent,
    /// Its host answered that nobody listens there.
    Refused,
}

/// Text of at most `MAX` bytes.
fn text<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    if text.len() > MAX {
        return Err(de::Error::invalid_length(text.len(), &"shorter text"));
    }
    Ok(text.to_owned())
}

/// At most `MAX` bytes.
fn bytes<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let bytes = <&[u8]>::deserialize(deserializer)?;
    if bytes.len() > MAX {
        return Err(de::Error::invalid_length(bytes.len(), &"fewer bytes"));
    }
    Ok(bytes.to_vec())
}
