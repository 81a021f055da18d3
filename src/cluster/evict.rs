//! Eviction: telling another member to leave. It announces its departure itself and stays away until it is told to
//! join.
//!
//! Closing the link would not help, because other members would dial it again. No daemon can declare that another has
//! left either, because that member would refute it.

use std::collections::BTreeMap;
use std::time::Duration;

use pmd_core::membership::Identity;
use pmd_protocol::peer::{Generation, NodeId};

use super::membership::{Cluster, LEAVE_TIMEOUT};
use crate::directory::hosts::same_host;
use crate::link::inbox::Ended;

/// Time for evicted members to leave: a dial if there is no link, and their own announcement.
const GONE: Duration = LEAVE_TIMEOUT.saturating_mul(3);

/// The result of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// No member has that name or address.
    Unknown,
    /// The name or address is that of this daemon itself.
    Oneself,
    /// This number of members has left.
    Left(usize),
    /// At least one member was told to leave and did not.
    Stayed,
}

impl Cluster {
    /// Tells the members with the address or host name `asked` to leave the cluster, and waits until they have left.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn evict(&self, asked: &str) -> Result<Eviction, Ended> {
        let asked = asked.trim();
        // A host name may be unknown to this host's resolver.
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
                // Otherwise the joiner would dial the member again.
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
