//! Links, dials and packets of the simulated world.

use std::collections::{BTreeMap, VecDeque};

use pmd_protocol::peer::frame::{Reason, Sight};
use pmd_protocol::peer::{Frame, NodeId, Stamp};

use super::pool::Pool;
use crate::event::Event;
use crate::membership::Identity;
use crate::node::{LinkId, Node, Purpose};

/// A daemon that shares facts with the others.
pub type SimNode = Node<Pool>;

/// One daemon, and what its host does for it.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) node: SimNode,
    pub(super) events: Vec<Event>,
    /// Which start of this host it is.
    pub(super) boot: u64,
    /// Its links: the other end, and what it has not read yet.
    pub(super) links: BTreeMap<LinkId, End>,
    /// Stopped, but its host is up.
    pub(super) frozen: bool,
    /// What waits because it is.
    pub(super) waiting: VecDeque<What>,
    /// When its timer is set; other wake-ups are void.
    pub(super) wake_ms: u64,
    /// How far its own entries were when that was last noted.
    pub(super) noted: Stamp,
    /// How far its wall clock is off, in milliseconds.
    pub(super) skew_ms: i64,
}

/// One end of a link.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) peer: usize,
    pub(super) peer_boot: u64,
    pub(super) peer_link: LinkId,
    /// Bytes that were sent and not read yet; the window of the transport.
    pub(super) unread: usize,
    /// Nothing overtakes on a link.
    pub(super) last_ms: u64,
    /// Until when what has arrived has to be acknowledged, if nothing is sent by then.
    pub(super) acknowledge_ms: Option<u64>,
}

/// What can happen.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A daemon's timer.
    Wake,
    /// Bytes arrive on a link.
    Bytes { link: LinkId, bytes: Vec<u8>, tries: u32 },
    /// The other end has gone.
    Gone { link: LinkId, farewell: Option<Reason> },
    /// A connection request arrives.
    Dialled { from: usize, from_boot: u64, caller: Identity, purpose: Purpose },
    /// It was answered.
    Answered { from: usize, from_boot: u64, peer_link: Option<LinkId>, peer: Identity, purpose: Purpose },
    /// It was not.
    NoAnswer { peer: Identity, purpose: Purpose, sight: Sight },
    /// A message over a short connection.
    Packet { frame: Frame },
}

/// What an event can have changed in what a daemon knows of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Nothing,
    Origins(Vec<NodeId>),
    Everything,
}

/// How a host answers whoever dials it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostState {
    /// The daemon runs.
    Up,
    /// The host is there, the daemon is not.
    Refuses,
    /// Nothing answers.
    Vanished,
}
