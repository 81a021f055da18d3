//! Immutable snapshots of the cluster, which other modules read without involving the core thread.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_core::membership::Liveness;
use pmd_core::node::{Node, Now};
use pmd_protocol::HostName;
use pmd_protocol::peer::{Digest, NodeId};

use super::alarm::Raised;
use crate::link::connection::Traffic;
use crate::link::inbox::LinkEnd;
use crate::link::peer_clock::PeerClock;

/// The cluster at one moment, as this daemon sees it.
#[derive(Debug)]
pub struct ClusterView {
    /// This daemon's identity in the membership.
    pub identity: Identity,
    /// The other live members.
    pub members: Vec<(Identity, Liveness)>,
    /// The links.
    pub links: Vec<LinkView>,
    /// The digest of the whole registry. Two daemons with equal digests have the same registry.
    pub fingerprint: Digest,
    /// The alarms that need attention, oldest first.
    pub alarms: Vec<Raised>,
}

/// A link in a snapshot.
#[derive(Debug)]
pub struct LinkView {
    /// The peer's id.
    pub id: NodeId,
    /// The peer's host name.
    pub host: HostName,
    /// The peer's address.
    pub address: SocketAddr,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// Milliseconds since the link was established.
    pub age_ms: u64,
    /// The round-trip time of heartbeats in microseconds. `traffic` has the kernel's more precise value.
    pub heartbeat_rtt_us: Option<u32>,
    /// Suspicion level by phi accrual (Hayashibara et al. 2004).
    pub phi: f64,
    /// Milliseconds since the last frame from the peer.
    pub silent_ms: u64,
    /// Whether the peer's last summary matches this daemon's registry.
    pub agrees: bool,
    /// The member count in the peer's last summary, including itself; `None` until the first summary.
    pub peer_members: Option<usize>,
    /// Live byte counters and round-trip time.
    pub traffic: Arc<Traffic>,
    /// The live offset of the peer's clock.
    pub clock: Arc<PeerClock>,
}

impl LinkView {
    /// The round-trip time in microseconds: the kernel's if known, otherwise that of heartbeats.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u32> {
        self.traffic.rtt_us().or(self.heartbeat_rtt_us)
    }
}

impl ClusterView {
    /// Takes a snapshot of `node` at `now`; `end` returns this daemon's end of a link.
    pub(super) fn new<'a>(
        node: &Node,
        now: Now,
        end: impl Fn(pmd_core::node::LinkId) -> Option<&'a LinkEnd>,
        alarms: Vec<Raised>,
    ) -> ClusterView {
        let now_ms = now.mono_ms;
        let summary = node.replica().summary();
        let links = node.links().filter_map(|(number, link)| {
            let end = end(number)?;
            Some(LinkView {
                id: link.peer.id,
                host: end.host.clone(),
                address: end.address,
                initiated: end.initiated,
                age_ms: now_ms.saturating_sub(link.since_ms),
                heartbeat_rtt_us: link.rtt_us,
                phi: link.phi.phi(now_ms),
                silent_ms: now_ms.saturating_sub(link.phi.last_ms()),
                agrees: link.summary().is_some_and(|theirs| theirs.fingerprint == summary.fingerprint),
                peer_members: link.summary().and_then(|theirs| usize::try_from(theirs.members).ok()),
                traffic: Arc::clone(&end.traffic),
                clock: Arc::clone(&end.clock),
            })
        });
        ClusterView {
            identity: node.identity().clone(),
            members: node.members().map(|(identity, liveness)| (identity.clone(), liveness)).collect(),
            links: links.collect(),
            fingerprint: node.replica().fingerprint(),
            alarms,
        }
    }

    /// The number of suspected members.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.members.iter().filter(|(_, liveness)| *liveness == Liveness::Suspect).count()
    }

    /// The number of linked peers whose last summary matches this daemon's registry.
    #[must_use]
    pub fn agreeing(&self) -> usize {
        self.links.iter().filter(|link| link.agrees).count()
    }

    /// Whether all linked peers agree. A daemon without links is converged only if it has no other members.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.agreeing() == self.links.len() && (!self.links.is_empty() || self.members.is_empty())
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<&Identity> {
        self.members.iter().map(|(identity, _)| identity).find(|identity| identity.id == *id)
    }

    /// The links to this peer; there can briefly be two.
    pub fn links_to(&self, id: NodeId) -> impl Iterator<Item = &LinkView> {
        self.links.iter().filter(move |link| link.id == id)
    }
}
