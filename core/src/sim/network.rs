//! Links, dials and one-shot messages of the simulated world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pmd_protocol::peer::frame::{Observation, Reason};
use pmd_protocol::peer::{Frame, NodeId, Stamp};

use super::pool::Pool;
use crate::event::ClusterEvent;
use crate::membership::Identity;
use crate::node::{LinkId, Node, Purpose};

/// A node that shares facts with the others.
pub type SimNode = Node<Pool>;

/// One daemon, and its connections.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) node: SimNode,
    pub(super) events: Vec<ClusterEvent>,
    /// How often the host was started, which tells this daemon from its predecessors.
    pub(super) boot: u64,
    /// Its links.
    pub(super) links: BTreeMap<LinkId, End>,
    /// The daemons that it has had a link to.
    pub(super) met: BTreeSet<NodeId>,
    /// Whether the process is stopped while its host is up.
    pub(super) frozen: bool,
    /// Events that wait while the process is frozen.
    pub(super) waiting: VecDeque<What>,
    /// When its timer fires; other wake-ups are ignored.
    pub(super) wake_ms: u64,
    /// The last recorded version of its own entries.
    pub(super) noted: Stamp,
    /// The offset of its wall clock in milliseconds.
    pub(super) skew_ms: i64,
}

/// One end of a link.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) peer: usize,
    pub(super) peer_boot: u64,
    pub(super) peer_link: LinkId,
    /// Bytes that were sent but not read yet, for the window of the transport.
    pub(super) unread: usize,
    /// When the last frame arrives; later ones must not overtake it.
    pub(super) last_ms: u64,
    /// When received bytes must be acknowledged, unless a frame is sent before.
    pub(super) acknowledge_ms: Option<u64>,
}

/// An event.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A daemon's timer.
    Wake,
    /// Bytes arrive on a link.
    Bytes { link: LinkId, bytes: Vec<u8>, tries: u32 },
    /// The other end has closed the link.
    Gone { link: LinkId, reason: Option<Reason> },
    /// A connection request arrives.
    Dialled { from: usize, from_boot: u64, caller: Identity, purpose: Purpose },
    /// A connection request was answered.
    Answered { from: usize, from_boot: u64, peer_link: Option<LinkId>, peer: Identity, purpose: Purpose },
    /// A connection request failed.
    NoAnswer { peer: Identity, purpose: Purpose, observation: Observation },
    /// A message over a one-shot connection.
    OneShot { frame: Frame },
}

/// The origins whose state at a daemon an event may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Nothing,
    Origins(Vec<NodeId>),
    Everything,
}

/// How a host answers dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostState {
    /// The daemon is running.
    Up,
    /// The host is up, but the daemon is not running.
    Refuses,
    /// Nothing answers.
    Vanished,
}
