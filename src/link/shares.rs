//! How many links and one-shot connections a member, and all members at one address, may open to this daemon, so that
//! none can use the descriptors of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;

use super::handshake::{ProvenPeer, close};
use super::refusals::Refusals;
use crate::base::log::limited::LimitedLog;
use crate::base::source::{one_host, release};
use crate::base::stats::Counters;

/// Links of one member: one that is up, and those before it whose ends have not arrived yet, when it reconnects.
const LINKS_OF_MEMBER: usize = 4;
/// One-shot connections of one member. It keeps one for all its frames.
const ONESHOTS_OF_MEMBER: usize = 4;
/// All members at one address, such as that of a NAT, may use one out of this many descriptors.
const SHARE_OF_ADDRESS: usize = 4;
/// Minimum share of an address.
const LEAST_OF_ADDRESS: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// A link.
    Link,
    /// A frame or two.
    Oneshot,
}

/// The share that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverShare {
    /// That of the member.
    #[error("this member has its share of connections")]
    Member,
    /// That of its address.
    #[error("the members at this address have their share of connections")]
    Address,
}

/// The connections that members have opened to this daemon.
#[derive(Debug)]
pub struct Shares {
    of_address: usize,
    counts: Mutex<Counts>,
    reports: Reports,
}

/// Where operators see who wants more than its share.
#[derive(Debug, Default)]
pub struct Reports {
    /// Recent rejections.
    pub refusals: Arc<Refusals>,
    /// The log, if there is one.
    pub log: Option<Arc<LimitedLog>>,
}

#[derive(Debug, Default)]
struct Counts {
    members: HashMap<(NodeId, Use), usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// A connection that is counted, until this is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    member: (NodeId, Use),
    address: IpAddr,
}

impl Shares {
    /// Creates the shares in a process that may open this many descriptors.
    #[must_use]
    pub fn new(descriptors: usize, reports: Reports) -> Arc<Shares> {
        let of_address = (descriptors / SHARE_OF_ADDRESS).max(LEAST_OF_ADDRESS);
        Arc::new(Shares { of_address, counts: Mutex::default(), reports })
    }

    /// Counts a connection of `member` with `address`.
    ///
    /// # Errors
    ///
    /// If one of them has its share already.
    pub fn take(
        self: &Arc<Shares>,
        member: NodeId,
        address: IpAddr,
        wanted: Use,
    ) -> Result<Share, OverShare> {
        let (member, address) = ((member, wanted), one_host(address));
        let most = match wanted {
            Use::Link => LINKS_OF_MEMBER,
            Use::Oneshot => ONESHOTS_OF_MEMBER,
        };
        let mut counts = self.counts();
        if counts.members.get(&member).is_some_and(|count| *count >= most) {
            return Err(OverShare::Member);
        }
        if counts.addresses.get(&address).is_some_and(|count| *count >= self.of_address) {
            return Err(OverShare::Address);
        }
        *counts.members.entry(member).or_default() += 1;
        *counts.addresses.entry(address).or_default() += 1;
        Ok(Share { shares: Arc::clone(self), member, address })
    }

    /// Closes a connection for which there is no share, and reports it.
    pub async fn refuse(&self, mut peer: ProvenPeer, over: OverShare, counters: &Counters) {
        counters.links_over_share.add();
        let (host, id, address) = (peer.host.clone(), peer.hello.id, peer.address);
        let what = format!("member {host} ({id:.8}) wants more connections than it may have: {over}");
        self.reports.refusals.note(address.ip(), false, "share", &what);
        if let Some(log) = &self.reports.log {
            log.line(format!("share of {id}"), move |more| {
                tracing::warn!(%host, ?id, %address, "no room for a connection: {over}{more}");
            });
        }
        close(&mut peer.frames, Reason::Busy, over.to_string()).await;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        release(&mut counts.members, &self.member);
        release(&mut counts.addresses, &self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_member_has_a_link_and_a_few_one_shot_connections() {
        let shares = Shares::new(1_024, Reports::default());
        for (wanted, most) in [(Use::Link, LINKS_OF_MEMBER), (Use::Oneshot, ONESHOTS_OF_MEMBER)] {
            let take = || shares.take(id(1), ip("10.0.0.1"), wanted);
            let mut held: Vec<Share> = (0..most).map(|_| take().expect("a share")).collect();
            assert_eq!(take().err(), Some(OverShare::Member));
            assert!(shares.take(id(2), ip("10.0.0.1"), wanted).is_ok(), "another member");
            held.pop();
            held.push(take().expect("one was returned"));
            std::mem::forget(held);
        }
    }

    #[test]
    fn many_members_at_one_address_have_one_share() {
        let shares = Shares::new(256, Reports::default());
        let members = 1..=u8::MAX;
        let take = |address: &str| -> Vec<Share> {
            members.clone().map_while(|member| shares.take(id(member), ip(address), Use::Link).ok()).collect()
        };
        let first = take("fd00::1");
        assert_eq!(first.len(), 64);
        assert_eq!(take("fd00::2").len(), 0, "in the same /64");
        assert_eq!(take("10.0.0.1").len(), 64);
        drop(first);
        assert_eq!(take("fd00::2").len(), 64);
        let counts = shares.counts();
        assert!(counts.members.is_empty() && counts.addresses.is_empty(), "{counts:?}");
    }
}
