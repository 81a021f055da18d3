//! The addresses at which members were, as proven by links in this life of the daemon.
//!
//! A peer that asks this daemon to probe a member learns whether a port is closed only at these addresses: a member may
//! advertise any address, and otherwise it could have the ports of third hosts probed.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use pmd_protocol::peer::NodeId;

/// Maximum number of remembered addresses: of more members than a daemon has links to in a day. The oldest is forgotten
/// first, and then its member is silent for others instead of gone, which costs them a second.
const MAX_PROVEN: usize = 8_192;

/// The proven addresses.
#[derive(Debug, Default)]
pub struct ProvenAddresses(Mutex<Proven>);

#[derive(Debug, Default)]
struct Proven {
    known: HashSet<(NodeId, IpAddr)>,
    /// The same, oldest first.
    order: VecDeque<(NodeId, IpAddr)>,
}

impl ProvenAddresses {
    /// Remembers that `member` was proven over a connection with `address`.
    pub fn add(&self, member: NodeId, address: IpAddr) {
        let entry = (member, address.to_canonical());
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !proven.known.insert(entry) {
            return;
        }
        proven.order.push_back(entry);
        if proven.order.len() > MAX_PROVEN
            && let Some(oldest) = proven.order.pop_front()
        {
            proven.known.remove(&oldest);
        }
    }

    /// Whether `member` was proven over a connection with `address`.
    pub fn contains(&self, member: NodeId, address: IpAddr) -> bool {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.known.contains(&(member, address.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_proven_for_its_member_only_and_their_number_is_bounded() {
        let proven = ProvenAddresses::default();
        let ip = |number: u32| IpAddr::V4(number.into());
        let first = (NodeId::MIN, ip(1));
        proven.add(first.0, "::ffff:0.0.0.1".parse().expect("an address"));
        assert!(proven.contains(first.0, first.1));
        assert!(!proven.contains(NodeId::MAX, ip(1)) && !proven.contains(NodeId::MIN, ip(2)));
        for number in 0..20_000 {
            proven.add(NodeId::MAX, ip(number));
        }
        assert!(!proven.contains(first.0, first.1) && proven.contains(NodeId::MAX, ip(19_999)));
        let kept = proven.0.lock().expect("alone");
        assert_eq!((kept.known.len(), kept.order.len()), (MAX_PROVEN, MAX_PROVEN));
    }
}
