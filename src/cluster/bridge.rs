//! Connects the core with the rest of the daemon: turns changes of this host into commands, and the core's patches and
//! events into updates of the read model, the event log and log lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_core::event::{ClusterChange, ClusterEvent};
use pmd_core::node::{Command, LinkId, Node};
use pmd_core::replica::view::Patch;
use pmd_protocol::peer::NodeId;
use tokio::sync::watch;

use crate::base::log::limited::LimitedLog;
use crate::directory::agreed_aliases::Review;
use crate::directory::cluster::{Claim, ClusterDirectory};
use crate::directory::events::{EventKind, EventOrigin};
use crate::directory::local::Local;
use crate::link::inbox::LinkEnd;

/// The bridge. Owned by the core thread.
#[derive(Debug)]
pub(super) struct Bridge {
    local: Arc<Local>,
    directory: Arc<ClusterDirectory>,
    /// Changes with every membership change.
    members: watch::Sender<u64>,
    /// Limits log lines about members, by member.
    log: Arc<LimitedLog>,
    /// New members whose host name is not known yet, with the time they were first seen. They are published once the
    /// name arrives, usually within moments.
    unnamed: BTreeMap<NodeId, u64>,
}

/// The core's state at the time of an output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The node.
    pub node: &'a Node,
    /// The node's monotonic time.
    pub now_ms: u64,
    /// This daemon's ends of the links.
    pub ends: &'a BTreeMap<LinkId, LinkEnd>,
}

impl Facts<'_> {
    /// A member's host name: as published, or as given in the handshake of its link; empty if neither is known.
    pub(super) fn host_of(&self, id: &NodeId) -> String {
        let published = self.node.replica().view().host(id).map(ToString::to_string);
        let end = || self.ends.values().find(|end| end.peer.id == *id).map(|end| end.host.to_string());
        published.or_else(end).unwrap_or_default()
    }

    /// This daemon's own evidence about a silent member, for log lines.
    fn silence_of(&self, id: &NodeId) -> String {
        match self.node.links().find(|(_, link)| link.peer.id == *id) {
            Some((_, link)) => {
                let silence = self.now_ms.saturating_sub(link.phi.last_ms());
                format!("no frame on its link for {silence} ms, phi {:.1}", link.phi.phi(self.now_ms))
            }
            None => "no link to it".into(),
        }
    }
}

impl Bridge {
    /// Creates a bridge with an empty read model.
    pub(super) fn new(
        local: Arc<Local>,
        directory: Arc<ClusterDirectory>,
        members: watch::Sender<u64>,
        log: Arc<LimitedLog>,
    ) -> Bridge {
        Bridge { local, directory, members, log, unnamed: BTreeMap::new() }
    }

    /// The changes on this host since the last call, as commands.
    pub(super) fn changes(&self) -> impl Iterator<Item = Command> {
        let changes = self.local.changes().take();
        changes.into_iter().filter_map(|changed| {
            let (entry, present) = self.local.entry(&changed)?;
            Some(if present { Command::Put(entry) } else { Command::Remove(entry) })
        })
    }

    /// Waits until something has changed on this host.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let changes = Arc::clone(self.local.changes());
        async move { changes.wait().await }
    }

    /// Marks all registrations of this host as changed, for a new node.
    pub(super) fn begin(&self) {
        self.local.mark_all();
    }

    /// Removes all members and their registrations after this daemon has left.
    pub(super) fn reset(&mut self) {
        self.directory.clear();
        self.unnamed.clear();
        self.members.send_modify(|changes| *changes += 1);
        self.local.mark_all();
    }

    /// Takes its host names from a daemon that was expelled, or lets a readmitted one have names again.
    pub(super) fn set_expelled(&self, id: NodeId, expelled: bool) {
        self.directory.set_expelled(id, expelled);
    }

    /// A member's claim to a host name that another member holds.
    pub(super) fn lost_claim(&self, id: &NodeId) -> Option<Claim> {
        self.directory.lost_claim(id)
    }

    /// Decides whether this host keeps its alias at this time of the core's clock.
    pub(super) fn review_own_alias(&self, now_ms: u64) -> Review {
        self.directory.review_own_alias(now_ms)
    }

    /// Applies a change of the registry to the read model.
    pub(super) fn patch(&mut self, facts: Facts<'_>, patch: &Patch) {
        self.directory.apply(facts.node.identity().id, patch);
        let (Patch::Change { origin, .. } | Patch::Hide { origin, .. }) = patch;
        let host = facts.host_of(origin);
        if !host.is_empty() {
            self.publish_node_up(facts, *origin, &host);
        }
    }

    /// Publishes an event.
    pub(super) fn event(&mut self, facts: Facts<'_>, event: ClusterEvent) {
        let ClusterEvent { at_ms, origin, host, change: what } = event;
        let kind = match &what {
            ClusterChange::NodeUp => EventKind::NodeUp,
            ClusterChange::NodeSuspect => EventKind::NodeSuspect,
            ClusterChange::NodeDown => EventKind::NodeDown,
            ClusterChange::NodeLeft(_) => EventKind::NodeLeft,
            ClusterChange::NameUp(_) => EventKind::NameUp,
            ClusterChange::NameDown(_) => EventKind::NameDown,
            ClusterChange::ServiceUp(_) => EventKind::ServiceUp,
            ClusterChange::ServiceDown(_) => EventKind::ServiceDown,
        };
        if matches!(kind, EventKind::NodeUp | EventKind::NodeDown | EventKind::NodeLeft) {
            self.members.send_modify(|changes| *changes += 1);
        }
        if kind == EventKind::NodeUp {
            let member = facts.node.members().find(|(identity, _)| identity.id == origin);
            let addresses = member.map(|(identity, _)| identity.addresses.as_slice());
            self.directory.set_addresses(origin, addresses.unwrap_or_default());
        }
        if origin == facts.node.identity().id {
            // This host's own events are published where they occur.
            return;
        }
        let host = host.map_or_else(|| facts.host_of(&origin), |host| host.to_string());
        if kind == EventKind::NodeUp && host.is_empty() {
            self.unnamed.insert(origin, at_ms);
            return;
        }
        if kind != EventKind::NodeUp {
            self.publish_node_up(facts, origin, &host);
        }
        self.publish(facts, at_ms, kind, origin, &host, &what);
    }

    /// Publishes the delayed `NodeUp` of a member whose host name is now known.
    fn publish_node_up(&mut self, facts: Facts<'_>, origin: NodeId, host: &str) {
        if let Some(at_ms) = self.unnamed.remove(&origin) {
            self.publish(facts, at_ms, EventKind::NodeUp, origin, host, &ClusterChange::NodeUp);
        }
    }

    fn publish(
        &self,
        facts: Facts<'_>,
        at_ms: u64,
        kind: EventKind,
        origin: NodeId,
        host: &str,
        what: &ClusterChange,
    ) {
        let what_happened = match kind {
            EventKind::NodeUp => Some("member up"),
            EventKind::NodeSuspect => Some("member suspected"),
            EventKind::NodeDown => Some("member down"),
            EventKind::NodeLeft => Some("member left"),
            _ => None,
        };
        if let Some(text) = what_happened {
            let is_bad = matches!(kind, EventKind::NodeSuspect | EventKind::NodeDown);
            let evidence = is_bad.then(|| facts.silence_of(&origin));
            let (host, reason) = (host.to_owned(), evidence.or_else(|| what.reason().map(str::to_owned)));
            // Apart from the lines about its link, so that a link that flaps does not hide that its peer is down.
            self.log.line(format!("member {origin}"), move |more| match reason {
                Some(reason) if is_bad => tracing::warn!(%host, id = ?origin, reason, "{text}{more}"),
                Some(reason) => tracing::info!(%host, id = ?origin, reason, "{text}{more}"),
                None => tracing::info!(%host, id = ?origin, "{text}{more}"),
            });
        }
        let (name, port) = match what {
            ClusterChange::NameUp(entry)
            | ClusterChange::NameDown(entry)
            | ClusterChange::ServiceUp(entry)
            | ClusterChange::ServiceDown(entry) => (entry.name().into(), entry.port()),
            _ => (host.into(), None),
        };
        let origin = EventOrigin { id: origin, host: host.into() };
        self.local.events().publish_remote(at_ms, kind, name, port, what.reason(), origin);
    }
}
