//! Telling another member to leave: it announces that to everybody itself, and stays away until somebody there joins again.
//!
//! Closing the link to it would achieve nothing: a member is dialled again by whoever needs a link to it. And no daemon can
//! leave on behalf of another, which would only object. So it is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use pmd_core::membership::Identity;
use pmd_protocol::peer::{Generation, NodeId};

use super::membership::{Cluster, LEAVE_TIMEOUT};
use crate::directory::hosts::same_host;
use crate::link::inbox::Ended;

/// Time for the evicted to be gone: a dial where there is no link, and their own announcement.
const GONE: Duration = LEAVE_TIMEOUT.saturating_mul(3);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// No member goes by that name or address.
    Unknown,
    /// This daemon itself is meant.
    Oneself,
    /// So many were told, and are no longer members.
    Left(usize),
    /// They were told, and did not leave.
    Stayed,
}

impl Cluster {
    /// Tells the members that `asked` means, an address or a host name, to leave the cluster, and waits until they have.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn evict(&self, asked: &str) -> Result<Eviction, Ended> {
        let asked = asked.trim();
        // The name of a host need not have an address here.
        let addresses = self.resolve(asked).await.unwrap_or_default();
        let mut members = self.watch_members();
        let view = self.core().view().await?;
        let is_meant = |identity: &Identity, host: Option<&str>| {
            identity.addresses.iter().any(|address| addresses.contains(address))
                || host.is_some_and(|host| same_host(host, asked))
                || view.links_to(identity.id).any(|link| addresses.contains(&link.address))
        };
        if is_meant(&view.identity, Some(self.local().host().as_str())) {
            return Ok(Eviction::Oneself);
        }
        let mut meant: BTreeMap<NodeId, Generation> = BTreeMap::new();
        for (identity, _) in &view.members {
            let host = self.directory().host_of(&identity.id);
            if is_meant(identity, host.as_deref()) {
                meant.insert(identity.id, identity.generation);
                self.core().dismiss(identity.clone()).await?;
                // This daemon does not look for it by its addresses any more.
                for address in &identity.addresses {
                    self.joiner().forget(&address.to_string()).await;
                }
            }
        }
        if meant.is_empty() {
            return Ok(Eviction::Unknown);
        }
        let gone = async {
            loop {
                let view = self.core().view().await?;
                let stays = |(id, generation): (&NodeId, &Generation)| {
                    view.member(id).is_some_and(|member| member.generation == *generation)
                };
                if !meant.iter().any(stays) {
                    return Ok(Eviction::Left(meant.len()));
                }
                members.changed().await.map_err(|_| Ended)?;
            }
        };
        tokio::time::timeout(GONE, gone).await.unwrap_or(Ok(Eviction::Stayed))
    }
}
