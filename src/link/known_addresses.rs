//! The addresses whose handshakes have a reserved share: those of live members, and those that an operator has named.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::directory::cluster::ClusterDirectory;

/// Maximum number of remembered addresses of seeds. The seeds of a configuration are a few; only an operator who keeps
/// joining other hosts reaches it, and the members among them are known anyway.
const MAX_NAMED: usize = 1_024;

/// Tells known addresses from others.
#[derive(Debug)]
pub struct KnownAddresses {
    members: Arc<ClusterDirectory>,
    named: Mutex<BTreeSet<IpAddr>>,
}

impl KnownAddresses {
    /// Creates the set of the addresses of these members.
    #[must_use]
    pub fn new(members: Arc<ClusterDirectory>) -> KnownAddresses {
        KnownAddresses { members, named: Mutex::default() }
    }

    /// Adds addresses that an operator has named, as seeds or to be joined.
    pub fn add(&self, addresses: &[SocketAddr]) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if named.len() < MAX_NAMED {
                named.insert(address.ip().to_canonical());
            }
        }
    }

    /// Whether an address is that of a live member, or was named by an operator.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.members.is_member(address)
            || self.named.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use pmd_protocol::peer::NodeId;

    use super::*;

    #[test]
    fn members_are_known_while_they_live_and_seeds_always() {
        let members = Arc::new(ClusterDirectory::default());
        let known = KnownAddresses::new(Arc::clone(&members));
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        members.set_addresses(NodeId::MIN, &[address("10.0.0.1:4369")]);
        known.add(&[address("[::ffff:10.0.0.2]:4369")]);
        let contains = |text: &str| known.contains(text.parse().expect("an address"));
        let are = || ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "10.0.0.3"].map(contains);
        assert_eq!(are(), [true, true, true, false]);
        members.set_addresses(NodeId::MIN, &[]);
        assert_eq!(are(), [false, false, true, false]);
    }
}
