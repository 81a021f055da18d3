//! The aliases that all hosts agree on, this host's own among them.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use pmd_protocol::peer::{Alias, NodeId};

use super::ClusterDirectory;
use crate::base::clock::now_ms;
use crate::directory::agreed_aliases::{Clash, Review};

impl ClusterDirectory {
    /// This host's own alias.
    #[must_use]
    pub fn own_alias(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.own_alias.load(Ordering::Relaxed))
    }

    /// The same, as it is published.
    #[must_use]
    pub fn own_alias_claim(&self) -> Alias {
        self.read().aliases.own()
    }

    /// Decides whether this host keeps its alias; `mono_ms` is the time of a monotonic clock.
    pub fn review_own_alias(&self, mono_ms: u64) -> Review {
        let mut state = self.write();
        let in_company = !state.origins.is_empty();
        let review = state.aliases.review(mono_ms, now_ms(), in_company);
        if let Review::Moved(alias) = review {
            self.own_alias.store(alias.address.to_bits(), Ordering::Relaxed);
            state.version += 1;
            drop(state);
            self.changed.notify_one();
        }
        review
    }

    /// This daemon leaves the cluster, and will be new in the next one.
    pub fn unsettle_own_alias(&self) {
        self.write().aliases.unsettle();
    }

    /// Gives aliases whose daemons have been gone for too long to those that claim them.
    pub(super) fn settle_aliases(&self) {
        let mut state = self.write();
        if state.aliases.forget_expired(now_ms()) {
            state.version += 1;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The aliases that several daemons claim, with the hosts of these daemons.
    pub fn alias_clashes(&self) -> Vec<(Clash, Vec<String>)> {
        let state = self.read();
        let host = |id: &NodeId| state.origins.get(id).map(|origin| origin.host_name().to_lowercase());
        let hosts = |clash: &Clash| clash.by.iter().filter_map(host).collect();
        state.aliases.clashes().into_iter().map(|clash| (clash.clone(), hosts(&clash))).collect()
    }
}
