//! Telling another daemon to leave: it says farewell to everybody itself, and stays away until somebody there joins again.
//!
//! To close the link to it would be worth nothing: a member is dialled again by whoever wants a link to it. And nobody
//! can leave in the name of another, who would only object. So it is asked, as every member trusts every other.

use std::collections::BTreeMap;
use std::time::Duration;

use pmd_core::membership::Identity;
use pmd_core::node::Node;
use pmd_protocol::peer::NodeId;
use tokio::time::{Instant, sleep};

use super::driver::{Ended, Running};
use super::{Cluster, FAREWELL};
use crate::directory::cluster::same_host;

/// How long the told may take to be gone: a dial where there is no link, and their own farewell.
const GONE: Duration = FAREWELL.saturating_mul(3);
/// How often it is looked whether they are.
const AGAIN: Duration = Duration::from_millis(10);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure {
    /// No member goes by that.
    Unknown,
    /// This daemon itself is meant.
    Oneself,
    /// So many were told, and are members no more.
    Left(usize),
    /// They were told, and did not leave.
    Stay,
}

impl Cluster {
    /// Tells the members that are meant by `asked`, an address or the name of a host, to leave the cluster, and waits until
    /// they have.
    ///
    /// # Errors
    ///
    /// If the daemon is about to end.
    pub async fn dismiss(&self, asked: &str) -> Result<Departure, Ended> {
        let asked = asked.trim().to_owned();
        // A name of a host need not have an address here.
        let addresses = self.resolve(&asked).await.unwrap_or_default();
        let visit = self.core().visit(move |running| {
            let is_meant = |identity: &Identity| {
                identity.addresses.iter().any(|address| addresses.contains(address))
                    || goes_by(running.node(), &identity.id, &asked)
                    || running.address_of(&identity.id).is_some_and(|address| addresses.contains(&address))
            };
            if is_meant(running.node().identity()) {
                return None;
            }
            let members = running.node().members().map(|(identity, _)| identity);
            let meant: Vec<Identity> = members.filter(|identity| is_meant(identity)).cloned().collect();
            meant.iter().for_each(|identity| running.dismiss(identity));
            Some(meant)
        });
        let Some(meant) = visit.await? else { return Ok(Departure::Oneself) };
        if meant.is_empty() {
            return Ok(Departure::Unknown);
        }
        // What was joined by these addresses is not sought again by this daemon either.
        for address in meant.iter().flat_map(|identity| &identity.addresses) {
            self.seeker().forget(&address.to_string()).await;
        }
        let told = meant.len();
        let lives: BTreeMap<NodeId, _> =
            meant.into_iter().map(|identity| (identity.id, identity.generation)).collect();
        let deadline = Instant::now() + GONE;
        loop {
            let lives = lives.clone();
            let stays = move |running: &mut Running| {
                lives.iter().any(|(id, life)| running.node().life_of(id) == Some(*life))
            };
            if !self.core().visit(stays).await? {
                return Ok(Departure::Left(told));
            }
            if Instant::now() >= deadline {
                return Ok(Departure::Stay);
            }
            sleep(AGAIN).await;
        }
    }
}

fn goes_by(node: &Node, id: &NodeId, asked: &str) -> bool {
    node.registry().directory().host(id).is_some_and(|host| same_host(host.as_str(), asked))
}
