//! Eviction: telling another member to leave. It announces its departure itself and stays away until it is told to
//! join.
//!
//! Closing the link would not help, because other members would dial it again. No daemon can declare that another has
//! left either, because that member would refute it.

use std::time::Duration;

use pmd_core::membership::Identity;
use pmd_protocol::peer::NodeId;

use super::membership::{Cluster, LEAVE_TIMEOUT};
use super::named::Named;
use crate::link::inbox::Ended;

/// Time for an evicted member to leave: a dial if there is no link, and its own announcement.
const GONE: Duration = LEAVE_TIMEOUT.saturating_mul(3);

/// The result of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// No member has that id, name or address.
    Unknown,
    /// It is that of this daemon itself.
    ThisDaemon,
    /// Several members have that name or address.
    Several(Vec<NodeId>),
    /// The member has left.
    Left,
    /// The member was told to leave and did not.
    Stayed,
}

impl Cluster {
    /// Tells the member with the id, host name or address `asked` to leave the cluster, and waits until it has left.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn evict(&self, asked: &str) -> Result<Eviction, Ended> {
        let mut members = self.watch_members();
        let member = match self.named(asked).await? {
            Named::Unknown => return Ok(Eviction::Unknown),
            Named::ThisDaemon => return Ok(Eviction::ThisDaemon),
            Named::Several(ids) => return Ok(Eviction::Several(ids)),
            Named::Member(member, _) => member,
        };
        self.core().dismiss(member.clone()).await?;
        self.forget_addresses(&member).await;
        let gone = async {
            loop {
                let view = self.core().view().await?;
                if view.member(&member.id).is_none_or(|known| known.generation != member.generation) {
                    return Ok(Eviction::Left);
                }
                members.changed().await.map_err(|_| Ended)?;
            }
        };
        tokio::time::timeout(GONE, gone).await.unwrap_or(Ok(Eviction::Stayed))
    }

    /// Keeps the joiner from dialling a member again.
    pub(super) async fn forget_addresses(&self, member: &Identity) {
        for address in &member.addresses {
            self.joiner().forget(&address.to_string()).await;
        }
    }
}
