//! The inputs and outputs of a node.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd_protocol::HostName;
use pmd_protocol::peer::entry::EntryTooLong;
use pmd_protocol::peer::frame::{Observation, Reason};
use pmd_protocol::peer::{Entry, Expulsion, Frame, Host, KeyError, NodeId};

use super::violation::Rule;
use crate::attest::Keys;
use crate::event::ClusterEvent;
use crate::gossip::link::LinkId;
use crate::membership::Identity;
use crate::membership::expulsions::Administrators;
use crate::replica::view::Patch;
use crate::tuning::Tuning;

/// The time, according to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock with an arbitrary origin. All decisions are based on it.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch. Only used for events and for the start time of a generation.
    pub wall_ms: u64,
}

/// The settings that a node starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its key, of which its id is the hash, and the check of the signatures of others.
    pub keys: Arc<dyn Keys>,
    /// Random bytes: the nonce of its generation and the seed of all its random choices.
    pub seed: [u8; 32],
    /// The addresses it can be reached at, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// Its description of itself.
    pub host: Host,
    /// All parameters.
    pub tuning: Tuning,
    /// The daemons whose decisions about members count.
    pub administrators: Administrators,
    /// The decisions about members that an earlier run of this daemon knew.
    pub decisions: Vec<Expulsion>,
}

/// A request of a local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Register an Erlang node or a service, or change its registration.
    Put(Entry),
    /// Unregister the entry with the same kind, name and instance.
    Remove(Entry),
    /// Advertise these addresses of this daemon from now on, in order of preference.
    Advertise(Vec<SocketAddr>),
    /// Expel a member, or readmit it; ends with [`Output::Decided`].
    Decide {
        /// The member.
        member: NodeId,
        /// Its host name, for display.
        host: String,
        /// Whether to expel it.
        expelled: bool,
    },
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
    /// This daemon has as many entries as an origin may have.
    #[error("this host has as many entries as the cluster allows one host to have")]
    Full,
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
        /// The name of the peer's host in the handshake, which the certificate confirms if an authority issued it.
        host: HostName,
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
        /// The result. A member that completes the handshake was reached.
        observation: Observation,
    },
}

/// Why a member is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To establish a link. Ends with [`LinkEvent::Up`] or [`LinkEvent::Failed`].
    Link,
    /// To find out whether the member can be reached; the connection is then closed. Ends with [`LinkEvent::Probed`].
    Probe {
        /// Identifies the probe.
        token: u64,
        /// How long the dial may take, in milliseconds, because others wait for the result: `probe_rtt_ms`, more if
        /// this daemon is slow itself.
        timeout_ms: u64,
        /// Whether the result is for a peer. It must not learn from it what else listens at an address that a member
        /// advertises: [`Observation::Refused`] is for addresses at which the member itself was before, as proven by a
        /// link, and otherwise the observation is [`Observation::Silent`].
        discreet: bool,
    },
}

/// A request to the caller, or a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial a member.
    Dial {
        /// The member. Its addresses are those of its own record, which it has signed, never what others say.
        peer: Identity,
        /// Why it is dialled.
        purpose: Purpose,
    },
    /// Send a `Close` on a link and end it. No further events about this link are expected.
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
    /// A change in the cluster that is reported to users.
    Event(ClusterEvent),
    /// A decision about a member counts from now on. It should be remembered across restarts.
    Decided(Expulsion),
    /// A problem that needs an operator's attention.
    Alarm(Alarm),
    /// The departure has been announced to all peers. Once nothing is left to transmit, the links can be closed.
    Left,
}

/// A problem that needs an operator's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Two daemons write under this identity, because its key or a running machine was copied.
    Forked(NodeId),
    /// Another daemon uses this one's identity and keeps claiming it. One of the two needs its own key.
    IdentityTaken,
    /// A peer has broken this rule of the protocol, and its link was closed.
    Violation(NodeId, Rule),
    /// This daemon has as many entries as an origin may have, so the others do not see its newest registrations.
    Full,
    /// The member table is full, so new members are not seen.
    TableFull,
    /// This peer introduces more new members than one may in so short a time. Those beyond the limit are not seen.
    Introductions(NodeId),
    /// A decision about a member is ignored, because this daemon is not one of the configured administrators.
    IgnoredDecision(NodeId),
    /// More decisions about members are made by this member, or come over the link to it, than this daemon takes.
    TooManyDecisions(NodeId),
    /// By this daemon's clock, the generation of this member begins more than a hundred years in the future: one of the
    /// two clocks is wrong.
    Future(NodeId),
}
