//! Finding the member that a user names: by id, host name or address.

use pmd_core::membership::Identity;
use pmd_protocol::peer::NodeId;

use super::membership::Cluster;
use crate::directory::hosts::same_host;
use crate::link::inbox::Ended;

/// The shortest beginning of an id that names a member.
const SHORTEST_ID: usize = 8;

/// Whom a user means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// No live member has that id, name or address.
    Unknown,
    /// This daemon itself.
    ThisDaemon,
    /// This member, and its host name if known.
    Member(Identity, String),
    /// Several members.
    Several(Vec<NodeId>),
}

impl Cluster {
    /// Finds the live member with this id or beginning of one, host name or address.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn named(&self, asked: &str) -> Result<Named, Ended> {
        let asked = asked.trim();
        let is_id = asked.len() >= SHORTEST_ID && asked.bytes().all(|byte| byte.is_ascii_hexdigit());
        // A host name may be unknown to this host's resolver.
        let addresses = if is_id { Vec::new() } else { self.resolve(asked).await.unwrap_or_default() };
        let view = self.core().view().await?;
        let has_id = |id: &NodeId| is_id && id.to_string().starts_with(&asked.to_ascii_lowercase());
        let is_meant = |identity: &Identity, host: Option<&str>| {
            has_id(&identity.id)
                || identity.addresses.iter().any(|address| addresses.contains(address))
                || host.is_some_and(|host| same_host(host, asked))
                || view.links_to(identity.id).any(|link| addresses.contains(&link.address))
        };
        let others = view.members.iter().filter_map(|(identity, _)| {
            let host = self.directory().host_of(&identity.id);
            is_meant(identity, host.as_deref()).then(|| (identity.clone(), host.unwrap_or_default()))
        });
        let mut others: Vec<_> = others.collect();
        let is_this_daemon = is_meant(&view.identity, Some(self.local().host().as_str()));
        let mut ids: Vec<_> = others.iter().map(|(identity, _)| identity.id).collect();
        if is_this_daemon {
            ids.push(view.identity.id);
        }
        Ok(match (others.pop(), ids.len()) {
            (_, 2..) => Named::Several(ids),
            (Some((identity, host)), _) => Named::Member(identity, host),
            (None, 1) => Named::ThisDaemon,
            (None, _) => Named::Unknown,
        })
    }
}
