//! What the core thread knows of the cluster at one moment: an immutable snapshot that others read without it.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd_core::membership::Identity;
use pmd_core::membership::Liveness;
use pmd_core::node::{Alarm, Node, Now};
use pmd_protocol::HostName;
use pmd_protocol::peer::{Digest, NodeId};

use crate::link::connection::Traffic;
use crate::link::inbox::LinkEnd;
use crate::link::peer_clock::PeerClock;

/// A snapshot.
#[derive(Debug)]
pub struct ClusterView {
    /// This daemon, as the membership names it.
    pub identity: Identity,
    /// The other live members.
    pub members: Vec<(Identity, Liveness)>,
    /// The links.
    pub links: Vec<LinkView>,
    /// The digest of the whole registry, by which two daemons find out that they have the same.
    pub fingerprint: Digest,
    /// What was wrong lately: when, in milliseconds since the Unix epoch, and what.
    pub alarms: Vec<(u64, Alarm)>,
}

/// One link.
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
    /// Milliseconds since it was established.
    pub age_ms: u64,
    /// The round-trip time of heartbeats, in microseconds. The kernel's own, which is finer, is in `traffic`.
    pub heartbeat_rtt_us: Option<u32>,
    /// Suspicion by phi accrual (Hayashibara et al. 2004).
    pub phi: f64,
    /// Milliseconds since the peer was last heard.
    pub silent_ms: u64,
    /// Whether the peer's registry was the same as this daemon's when it was last heard.
    pub agrees: bool,
    /// Bytes and round-trip time, which go on changing.
    pub traffic: Arc<Traffic>,
    /// The offset of the peer's clock, which goes on changing.
    pub clock: Arc<PeerClock>,
}

impl LinkView {
    /// The round-trip time in microseconds: the kernel's, or that of heartbeats.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u32> {
        self.traffic.rtt_us().or(self.heartbeat_rtt_us)
    }
}

impl ClusterView {
    /// What `node` knows at `now`; `end` finds this daemon's end of a link.
    pub(super) fn new<'a>(
        node: &Node,
        now: Now,
        end: impl Fn(pmd_core::node::LinkId) -> Option<&'a LinkEnd>,
        alarms: &[(u64, Alarm)],
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
                traffic: Arc::clone(&end.traffic),
                clock: Arc::clone(&end.clock),
            })
        });
        ClusterView {
            identity: node.identity().clone(),
            members: node.members().map(|(identity, liveness)| (identity.clone(), liveness)).collect(),
            links: links.collect(),
            fingerprint: node.replica().fingerprint(),
            alarms: alarms.to_vec(),
        }
    }

    /// How many of the members are suspected.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.members.iter().filter(|(_, liveness)| *liveness == Liveness::Suspect).count()
    }

    /// How many peers had the same registry as this daemon when they were last heard.
    #[must_use]
    pub fn agreeing(&self) -> usize {
        self.links.iter().filter(|link| link.agrees).count()
    }

    /// Whether every peer agrees, and there is one unless this daemon is alone.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.agreeing() == self.links.len() && (!self.links.is_empty() || self.members.is_empty())
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<&Identity> {
        self.members.iter().map(|(identity, _)| identity).find(|identity| identity.id == *id)
    }

    /// The links to this peer; for a moment there can be two.
    pub fn links_to(&self, id: NodeId) -> impl Iterator<Item = &LinkView> {
        self.links.iter().filter(move |link| link.id == id)
    }
}
