//! Expelling a member: it is out on all hosts at once, whether or not it agrees, and stays out until it is readmitted.
//!
//! Unlike an [eviction](super::evict), this does not need the member's consent: all others close their links and tunnels
//! to it and refuse it. It knows the cluster secret, so the secret is replaced in the same step.

use pmd_protocol::peer::NodeId;

use super::membership::Cluster;
use super::named::Named;
use super::rotator::RotateError;
use crate::link::inbox::Ended;

/// The result of a decision about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It was carried out: the member and its host name, if known.
    Done(NodeId, String),
    /// It was so before.
    Unchanged(NodeId),
    /// Nobody has that id, name or address.
    Unknown,
    /// It is that of this daemon itself.
    ThisDaemon,
    /// Several members have that name or address.
    Several(Vec<NodeId>),
    /// This daemon is leaving the cluster.
    Leaving,
    /// This daemon is not one of the configured administrators.
    NotAdministrator,
    /// The secret could not be replaced, so it was not expelled.
    NotReplaced(RotateError),
}

impl Cluster {
    /// Expels the member with the id, host name or address `asked`, and begins to replace the secret that it knows, unless
    /// `keep_secret`. A daemon that is not a member at the moment has to be named by its whole id.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn expel(&self, asked: &str, keep_secret: bool) -> Result<Decided, Ended> {
        let (id, host) = match (self.named(asked).await?, asked.trim().parse::<NodeId>()) {
            (Named::ThisDaemon, _) => return Ok(Decided::ThisDaemon),
            (Named::Several(ids), _) => return Ok(Decided::Several(ids)),
            (Named::Member(member, host), _) => {
                self.forget_addresses(&member).await;
                (member.id, host)
            }
            (Named::Unknown, Ok(id)) => (id, String::new()),
            (Named::Unknown, Err(_)) => return Ok(Decided::Unknown),
        };
        if !self.is_administrator {
            return Ok(Decided::NotAdministrator);
        }
        if keep_secret {
            if self.local().expulsion_of(&id).is_some() {
                return Ok(Decided::Unchanged(id));
            }
            let done = self.core().decide(id, host.clone(), true).await?;
            return Ok(if done { Decided::Done(id, host) } else { Decided::Leaving });
        }
        // In one step, because whoever is expelled may try to come back under another key at once.
        Ok(match self.rotator().expel(id, host.clone()).await {
            Ok(_) => Decided::Done(id, host),
            Err(error) => Decided::NotReplaced(error),
        })
    }

    /// Lets the expelled daemon with this id, beginning of an id, or host name return.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn readmit(&self, asked: &str) -> Result<Decided, Ended> {
        let asked = asked.trim().to_ascii_lowercase();
        let decisions = std::sync::Arc::clone(&self.local().watch_decisions().borrow());
        let is_meant = |id: &NodeId, host: &str| {
            host.eq_ignore_ascii_case(&asked) || (asked.len() >= 8 && id.to_string().starts_with(&asked))
        };
        let meant = decisions.values().filter(|one| one.expelled && is_meant(&one.member, &one.host));
        let meant: Vec<_> = meant.map(|one| (one.member, one.host.clone())).collect();
        match meant.as_slice() {
            _ if !self.is_administrator => Ok(Decided::NotAdministrator),
            [] => Ok(Decided::Unknown),
            [(id, host)] => {
                let done = self.core().decide(*id, host.clone(), false).await?;
                Ok(if done { Decided::Done(*id, host.clone()) } else { Decided::Leaving })
            }
            several => Ok(Decided::Several(several.iter().map(|(id, _)| *id).collect())),
        }
    }
}
