//! What the driver tells operators: lines in the log, each kind with its limit, and the alarms in `pmd status`.

use pmd_core::node::Alarm;
use pmd_core::replica::view::Patch;
use pmd_protocol::peer::{Entry, NodeId};

use super::Driver;
use crate::cluster::alarm::describe;
use crate::cluster::bridge::Facts;
use crate::directory::cluster::Claim;

impl Driver {
    /// Logs a warning if the patch contains a claim to a host name that another member holds.
    pub(super) fn log_lost_claim(&self, patch: &Patch) {
        let Patch::Change { origin, changes } = patch else { return };
        let brings_host =
            changes.iter().any(|change| matches!(change.after.as_deref(), Some(Entry::Host(_))));
        if let Some(claim) = self.bridge.lost_claim(origin).filter(|_| brings_host) {
            self.log.line(format!("claim of {origin}"), move |more| {
                let Claim { host, by, holder, .. } = claim;
                tracing::warn!(host, id = ?by, ?holder, "a member claims a host name that another one had first; it is not used{more}");
            });
        }
    }

    /// Logs a line about a link, subject to the limit for its peer: a link may come and go many times a second.
    pub(super) fn log_link(&self, peer: NodeId, write: impl FnOnce(&str) + Send + 'static) {
        self.changes.line(format!("link {peer}"), write);
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        if matches!(alarm, Alarm::Violation(..)) {
            self.serving.counters().violations.add();
        }
        let (id, text) = describe(&alarm);
        let now_ms = self.now().mono_ms;
        let facts = Facts { node: &self.node, now_ms, ends: &self.links.ends };
        // The name that it has proven, because its entries may name another host.
        let proven = |id| self.links.to(&id).map(|end| end.host.to_string());
        let host = id.map(|id| proven(id).unwrap_or_else(|| facts.host_of(&id))).unwrap_or_default();
        let named = host.clone();
        let needs_operator = matches!(alarm, Alarm::Forked(_) | Alarm::IdentityTaken);
        self.log.line(format!("{text} {id:?}"), move |more| {
            let id = id.map(tracing::field::debug);
            let host = (!named.is_empty()).then_some(named);
            if needs_operator {
                tracing::error!(host, id, "{text}{more}");
            } else {
                tracing::warn!(host, id, "{text}{more}");
            }
        });
        self.alarms.raise(now_ms, alarm, host);
    }
}
