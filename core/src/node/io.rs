//! What goes into a node and what comes out of it.

use std::net::SocketAddr;

use pmd_protocol::peer::entry::EntryTooLong;
use pmd_protocol::peer::frame::{Observation, Reason};
use pmd_protocol::peer::{Entry, Frame, Host, KeyError, NodeId};

use crate::event::ClusterEvent;
use crate::gossip::link::LinkId;
use crate::membership::Identity;
use crate::replica::view::Patch;
use crate::tuning::Tuning;

/// The time, according to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock with any origin. All decisions depend on it.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch. Only used for events and for the beginning of generations.
    pub wall_ms: u64,
}

/// The settings that a node starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hash of its public key.
    pub id: NodeId,
    /// Random bytes: the nonce of its generation and the seed of all its random choices.
    pub seed: [u8; 32],
    /// The addresses it can be reached at, best first.
    pub addresses: Vec<SocketAddr>,
    /// Its description of itself.
    pub host: Host,
    /// All parameters.
    pub tuning: Tuning,
}

/// A request of a local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Register an Erlang node or a service, or change its registration.
    Put(Entry),
    /// Unregister the entry with the same kind, name and instance.
    Remove(Entry),
    /// Advertise these addresses of this daemon from now on, best first.
    Advertise(Vec<SocketAddr>),
    /// Leave the cluster; ends with [`Output::Left`].
    Leave,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// See [`EntryTooLong`].
    #[error(transparent)]
    TooLong(#[from] EntryTooLong),
    /// See [`KeyError`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This daemon has left the cluster, or is about to.
    #[error("the daemon is leaving the cluster")]
    Leaving,
}

/// A change of a link, or the result of a dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link has come up: both sides have proven their identities.
    Up {
        /// The number of the link, which was never used before.
        link: LinkId,
        /// The identity of the peer.
        peer: Identity,
        /// Whether this daemon dialled.
        initiated: bool,
    },
    /// A link has ended, other than by [`Output::Close`].
    Down {
        /// The link.
        link: LinkId,
        /// The reason that the peer gave, if it closed the link properly.
        reason: Option<Reason>,
    },
    /// A dial for [`Purpose::Link`] has failed.
    Failed {
        /// The member that was dialled.
        peer: NodeId,
    },
    /// A dial for [`Purpose::Probe`] has ended.
    Probed {
        /// The token of the probe.
        token: u64,
        /// What came of it. A member that completes the handshake was reached.
        observation: Observation,
    },
}

/// Why a member is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To get a link. Ends with [`LinkEvent::Up`] or [`LinkEvent::Failed`].
    Link,
    /// To find out whether the member can be reached; the connection is closed again. Ends with [`LinkEvent::Probed`]
    /// within `probe_rtt_ms`, because others wait for the result.
    Probe(u64),
}

/// What a node wants done, or reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial a member.
    Dial {
        /// The member.
        peer: Identity,
        /// Why it is dialled.
        purpose: Purpose,
    },
    /// Send a `Close` on a link and end it. The node does not hear of this link again.
    Close {
        /// The link.
        link: LinkId,
        /// The reason to give.
        reason: Reason,
    },
    /// Send a message to a member without a link, over a one-shot connection. It may get lost.
    OneShot {
        /// The member.
        to: Identity,
        /// The message.
        frame: Frame,
    },
    /// The view of the registry has changed.
    Patch(Patch),
    /// Something has happened that people may want to know.
    Event(ClusterEvent),
    /// Something is wrong that an operator has to know.
    Alarm(Alarm),
    /// All peers have been told that this daemon leaves. Once nothing is left to transmit, the links can end.
    Left,
}

/// Something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Two daemons write under this identity: its key, or a running machine, was copied.
    Forked(NodeId),
    /// Another daemon uses this one's identity and does not give way. One of the two needs a key of its own.
    IdentityTaken,
    /// A peer has sent what no correct daemon sends, and its link is closed.
    Violation(NodeId),
}
